"""Write the embedded scenes of handwritten digits for detection, with COCO annotations.

python tools/dataset_converters/prepare_scenes.py --out data/scenes --held-out three seven
"""

import argparse
import json
import time
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them

import cv2  # isort: skip
import torch
from mmengine.structures import BaseDataElement, InstanceData

from florence_mm.corpora.scenes import SceneOptions, write_scenes
from florence_mm.errors import one_sentence_errors
from florence_mm.visualization.canvas import save_png, tile
from florence_mm.visualization.samples import draw_sample


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    default = SceneOptions()
    parser = argparse.ArgumentParser(description='Write scenes of handwritten digits with COCO annotations')
    parser.add_argument('--out', default='data/scenes', help='folder to write to (default: data/scenes)')
    parser.add_argument('--train', type=int, default=default.train, help='training images (default: %(default)s)')
    parser.add_argument('--test', type=int, default=default.test, help='test images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=default.size, help='width and height (default: %(default)s)')
    parser.add_argument(
        '--digits',
        type=int,
        nargs=2,
        default=default.digits,
        metavar=('MIN', 'MAX'),
        help='digits in an image that has any (default: 3 7)',
    )
    parser.add_argument(
        '--heights',
        type=float,
        nargs=2,
        default=default.heights,
        metavar=('MIN', 'MAX'),
        help="height of a digit as a fraction of the image's (default: 0.17 0.4)",
    )
    parser.add_argument('--seed', type=int, default=default.seed, help='seed (default: %(default)s)')
    parser.add_argument(
        '--held-out', nargs='+', default=(), metavar='CLASS', help='also write train_base without these classes'
    )
    parser.add_argument(
        '--outlines',
        action='store_true',
        help='annotations also have the outlines of the ink, rotated rectangles and reading order',
    )
    return parser.parse_args()


def draw_sheet(out: Path, folder: str, number: int = 32) -> Path:
    """Draw the first ``number`` scenes with their boxes and write the contact sheet."""
    content = json.loads((out / f'annotations/{folder}.json').read_bytes())
    names = {category['id']: category['name'] for category in content['categories']}
    ids = sorted(names)
    cells = []
    for image in content['images'][:number]:
        found = [item for item in content['annotations'] if item['image_id'] == image['id']]
        boxes = torch.tensor([item['bbox'] for item in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([ids.index(item['category_id']) for item in found], dtype=torch.int64)
        sample = BaseDataElement(gt_instances=InstanceData(bboxes=boxes, labels=labels))
        picture = cv2.imread(str(out / folder / image['file_name']))
        cells.append(draw_sample({'img': picture, 'data_samples': sample}, [names[i] for i in ids], bgr=True, size=256))
    path = out / f'contact_sheet_{folder}.png'
    save_png(tile(cells, columns=8), path)
    return path


def main() -> None:
    """Write the scenes, draw contact sheets, and print a summary."""
    args = parse_args()
    start = time.monotonic()
    out = Path(args.out)
    with one_sentence_errors():
        options = SceneOptions(
            args.train,
            args.test,
            args.size,
            tuple(args.digits),
            tuple(args.heights),
            args.seed,
            tuple(args.held_out),
            args.outlines,
        )
        written, total = write_scenes(out, options)
        for folder in options.folders:
            if written or not (out / f'contact_sheet_{folder}.png').is_file():
                draw_sheet(out, folder)
    pictures = ', '.join(f'{number} in {folder}/' for folder, (_, number, _) in options.folders.items())
    what = f'wrote {written} of {total} files' if written else f'all {total} files were there already'
    print(f'{out}: scenes of {args.size}x{args.size} pixels, {pictures}; ', end='')
    print(f'{what} ({time.monotonic() - start:.1f} s); look at contact_sheet_*.png')


if __name__ == '__main__':
    main()
