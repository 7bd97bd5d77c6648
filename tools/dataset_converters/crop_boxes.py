"""Crop the boxes of a detection data set, as pairs of image and class name for training two towers.

python tools/dataset_converters/crop_boxes.py ANNOTATIONS.json IMAGES --out data/crops/train
"""

import argparse

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.errors import one_sentence_errors
from florence_mm.preparation.box_crops import write_box_crops


def main() -> None:
    """Crop the boxes and print their number."""
    parser = argparse.ArgumentParser(description='Crop the boxes of a detection data set')
    parser.add_argument('ann_file', help='annotations in the format of COCO')
    parser.add_argument('image_folder', help='folder that their file names are relative to')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the crops; DIR.jsonl lists them')
    parser.add_argument('--size', type=int, default=224, help='side of a crop in pixels (default: 224)')
    parser.add_argument(
        '--context',
        type=float,
        nargs=2,
        default=(1.0, 1.5),
        metavar=('MIN', 'MAX'),
        help='range of the side of a crop as a multiple of its box (default: 1.0 1.5)',
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with one_sentence_errors():
        counts = write_box_crops(args.ann_file, args.image_folder, args.out, args.size, tuple(args.context), args.seed)
    print(f'{args.out}.jsonl: ' + ', '.join(f'{count} {what}' for what, count in counts.items()))


if __name__ == '__main__':
    main()
