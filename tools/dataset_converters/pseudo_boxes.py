"""Find boxes with a trained detector in images whose class is known, as a source for merge_detection.py.

python tools/dataset_converters/pseudo_boxes.py CONFIG CHECKPOINT MANIFEST.jsonl --out data/in22k/boxes.json
"""

import argparse
import sys
import time

import florence_mm  # noqa: F401  mends the installed packages, so it comes before anything that imports them
from florence_mm.apis.detection_inferencer import DetectionInferencer
from florence_mm.datasets import DataError
from florence_mm.datasets.detection import OBJECT
from florence_mm.datasets.merging import write_pseudo_boxes
from florence_mm.datasets.merging.pseudo_boxes import image_classes
from florence_mm.datasets.readers import read_rows
from florence_mm.engine.errors import UsageError
from florence_mm.utils.progress import format_seconds


def main() -> None:
    """Find boxes and say how many."""
    parser = argparse.ArgumentParser(description='Find boxes with a trained detector in images whose class is known')
    parser.add_argument('config', help="the detector's config")
    parser.add_argument('checkpoint', help='.pth or .safetensors file')
    parser.add_argument('manifest', help='jsonl, csv or parquet file with the columns image and class')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='annotations in the format of COCO')
    parser.add_argument('--image-root', default='', help='folder that the paths in the manifest start from')
    parser.add_argument('--score-thr', type=float, default=0.5, help='least score of a box (default: 0.5)')
    parser.add_argument('--top-k', type=int, default=10, help='most boxes of an image (default: 10)')
    parser.add_argument('--class-agnostic', action='store_true', help="give every box its image's class")
    parser.add_argument('--device', help='cpu or cuda; default: the GPU where there is one')
    args = parser.parse_args()
    start = time.monotonic()
    try:
        rows = image_classes(read_rows(args.manifest), args.manifest)
        inferencer = DetectionInferencer(args.config, args.checkpoint, args.device)
        agnostic = args.class_agnostic or list(inferencer.known_classes) == [OBJECT]
        if not inferencer.known_classes and not agnostic:
            raise UsageError(
                f'neither {args.checkpoint} nor {args.config} names the classes of the detector; add them as '
                'test_dataloader.dataset.metainfo.classes, or give --class-agnostic'
            )

        def detect(path: str) -> tuple:
            found = inferencer(path, score_thr=0.0)[0]
            return found['boxes'], found['scores'], found['labels'], (found['height'], found['width'])

        counts = write_pseudo_boxes(
            rows,
            detect,
            args.out,
            args.image_root,
            None if agnostic else inferencer.known_classes,
            args.score_thr,
            args.top_k,
            {'config': args.config, 'checkpoint': args.checkpoint, 'class_agnostic': agnostic},
        )
    except (DataError, UsageError, OSError, ValueError) as error:
        sys.exit(f'pseudo_boxes: {error}')
    print(
        f'{args.out}: {counts.boxes} boxes in {counts.images} images ({format_seconds(time.monotonic() - start)}); '
        f'{counts.images_without_boxes} images had no box that was good enough; of the boxes left out, '
        f'{counts.low_score} scored below {args.score_thr:g}, {counts.other_class} were of another class and '
        f'{counts.beyond_top_k} beyond the best {args.top_k}'
    )


if __name__ == '__main__':
    main()
