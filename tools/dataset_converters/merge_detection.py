"""Merge COCO, LVIS, Open Images and Objects365 annotations into one file in COCO's format.

python tools/dataset_converters/merge_detection.py PLAN.yml --out data/merged/train.json

PLAN.yml lists the sources and the synonyms of class names; docs/detection.md ("Training sets") describes it.
"""

import argparse
import time

from florence_mm.errors import one_sentence_errors
from florence_mm.preparation.merging import merge_detection, read_plan
from florence_mm.utils.files import refuse_overwriting
from florence_mm.utils.progress import format_seconds


def main() -> None:
    """Merge and print a summary."""
    parser = argparse.ArgumentParser(description='Merge detection annotations into one file in the format of COCO')
    parser.add_argument('plan', help='YAML or JSON file with the keys sources, synonyms and exclude')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='the merged annotations')
    parser.add_argument('--taxonomy', metavar='FILE', help="YAML or JSON file of synonyms, instead of the plan's")
    parser.add_argument(
        '--iou', type=float, default=0.7, help="least IoU of two sources' boxes of one object (default: 0.7)"
    )
    parser.add_argument(
        '--max-bad-boxes',
        type=float,
        default=0.01,
        metavar='N',
        help='most boxes without area per source, below 1 a fraction (default: 0.01)',
    )
    args = parser.parse_args()
    start = time.monotonic()
    with one_sentence_errors():
        refuse_overwriting(args.out, [args.plan, args.taxonomy], '--out')
        result = merge_detection(read_plan(args.plan, args.taxonomy), args.out, args.iou, args.max_bad_boxes)
    print(
        f'{result.out}: {result.images} images, {result.boxes} boxes, {result.classes} classes in '
        f'{format_seconds(time.monotonic() - start)}; {result.report} has the map of classes and all counts, '
        f'{result.merged_images} the images that several sources have'
    )


if __name__ == '__main__':
    main()
