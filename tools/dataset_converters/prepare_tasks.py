"""Write the tasks about the embedded scenes: detection, phrases, outlines, captions and texts, a file for each.

python tools/dataset_converters/prepare_scenes.py --out data/outlined_scenes --outlines
python tools/dataset_converters/prepare_tasks.py --scenes data/outlined_scenes --out data/scene_tasks
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from florence_mm.corpora.scene_tasks import FILES, SPLITS, TaskOptions, write_tasks
from florence_mm.errors import one_sentence_errors
from florence_mm.visualization.canvas import INK, PAPER, fit_image, fit_text, font, save_png, tile, wrap_text

SIDE, LINES = 256, 3
COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#42d4f4', '#f032e6', '#bfef45')


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    default = TaskOptions()
    parser = argparse.ArgumentParser(description='Write the tasks about scenes of digits')
    parser.add_argument(
        '--scenes',
        default='data/outlined_scenes',
        help='folder of prepare_scenes.py --outlines (default: %(default)s)',
    )
    parser.add_argument('--out', default='data/scene_tasks', help='folder to write to (default: %(default)s)')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=default.tolerance,
        help="distance of an answer's outline from the ink's, as a fraction of the picture (default: %(default)s)",
    )
    parser.add_argument('--seed', type=int, default=default.seed, help='seed (default: %(default)s)')
    return parser.parse_args()


def draw_cell(picture: np.ndarray, line: dict) -> np.ndarray:
    """Draw a picture with what a line asks and answers."""
    cell = Image.new('RGB', (SIDE, SIDE + 20 * LINES), PAPER)
    cell.paste(Image.fromarray(fit_image(picture, SIDE, SIDE)), (0, 0))
    draw, face = ImageDraw.Draw(cell), font(13)
    if 'region' in line:
        draw.rectangle([SIDE * value for value in line['region']], outline='white', width=2)
    for number, region in enumerate(line.get('regions', ())):
        colour = COLOURS[number % len(COLOURS)]
        for box in region.get('boxes', ()):
            draw.rectangle([SIDE * value for value in box], outline=colour, width=2)
        for points in [*region.get('polygons', ()), *([region['quad']] if 'quad' in region else [])]:
            draw.line([(SIDE * x, SIDE * y) for x, y in [*points, points[0]]], fill=colour, width=2)
    said = line.get('answer') or ', '.join(region['text'] for region in line.get('regions', ()) if 'text' in region)
    said = said or (line['answers'][0] if 'answers' in line else '')
    asked = f'{line["task"]}: {line["text"]}' if 'text' in line else line['task']
    texts = wrap_text(asked, face, SIDE, LINES - 1) + [fit_text(said, face, SIDE)]
    for number, text in enumerate(texts):
        draw.text((2, SIDE + 2 + 19 * number), text, font=face, fill=INK)
    return np.array(cell)


def _lines(out: Path, split: str, name: str) -> list[str]:
    return (out / f'{split}_{name}.jsonl').read_text(encoding='utf-8').splitlines()


def draw_sheet(scenes: Path, out: Path, split: str, columns: int = 6) -> None:
    """Draw some lines of every file, a row of pictures each, and write the contact sheet."""
    cells = []
    for name in FILES:
        lines = _lines(out, split, name)
        for place in range(columns if lines else 0):  # few scenes may have nothing to ask
            line = json.loads(lines[place * len(lines) // columns])
            picture = cv2.imread(str(scenes / split / line['image']))
            if picture is None:
                raise FileNotFoundError(f'there is no image {scenes / split / line["image"]}; write the scenes again')
            cells.append(draw_cell(picture[..., ::-1], line))
    save_png(tile(cells, columns=columns), out / f'contact_sheet_{split}.png')


def main() -> None:
    """Write the files, draw contact sheets, and print the number of lines of each file."""
    args = parse_args()
    start = time.monotonic()
    scenes, out = Path(args.scenes), Path(args.out)
    with one_sentence_errors():
        written, total = write_tasks(scenes, out, TaskOptions(args.tolerance, args.seed))
        for split in SPLITS:
            if written or not (out / f'contact_sheet_{split}.png').is_file():
                draw_sheet(scenes, out, split)
    for name in FILES:
        numbers = [len(_lines(out, split, name)) for split in SPLITS]
        print(f'{name:<24} {numbers[0]:7d} lines for training {numbers[1]:6d} for testing')
    what = f'wrote {written} of {total} files' if written else f'all {total} files were there already'
    print(f'{out}: tasks about {scenes}; {what} ({time.monotonic() - start:.1f} s); look at contact_sheet_*.png')


if __name__ == '__main__':
    main()
