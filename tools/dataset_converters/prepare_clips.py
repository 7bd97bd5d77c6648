"""Write the embedded clips of moving handwritten digits: mp4 files, classes of motion, captions.

python tools/dataset_converters/prepare_clips.py --out data/clips
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from florence_mm.corpora.clips import MOTIONS, ClipOptions, caption, write_clips
from florence_mm.errors import one_sentence_errors
from florence_mm.formats.video import open_video
from florence_mm.visualization.canvas import INK, PAPER, fit_image, font, save_png, tile

STRIP_FRAMES = 8


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    default = ClipOptions()
    parser = argparse.ArgumentParser(description='Write clips of moving handwritten digits with captions')
    parser.add_argument('--out', default='data/clips', help='folder to write to (default: data/clips)')
    parser.add_argument('--train', type=int, default=default.train, help='training clips (default: %(default)s)')
    parser.add_argument('--test', type=int, default=default.test, help='test clips (default: %(default)s)')
    parser.add_argument('--size', type=int, default=default.size, help='width and height (default: %(default)s)')
    parser.add_argument('--frames', type=int, default=default.frames, help='frames per clip (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=default.seed, help='seed (default: %(default)s)')
    return parser.parse_args()


def draw_strip(path: Path, text: str) -> np.ndarray:
    """Draw evenly spaced frames of a clip side by side, with its caption above."""
    video = open_video(path.read_bytes(), str(path))
    frames = video.read(np.linspace(0, len(video) - 1, min(STRIP_FRAMES, len(video))).round().astype(int))
    video.close()
    strip = np.concatenate(
        [np.pad(fit_image(f, 96, 96), ((0, 0), (0, 4), (0, 0)), constant_values=255) for f in frames], axis=1
    )
    cell = Image.new('RGB', (strip.shape[1], strip.shape[0] + 24), PAPER)
    cell.paste(Image.fromarray(strip), (0, 24))
    ImageDraw.Draw(cell).text((0, 2), text, font=font(15), fill=INK)
    return np.array(cell)


def draw_sheet(out: Path, split: str, per_motion: int = 2) -> Path:
    """Draw the first clips of each motion as strips and write the contact sheet."""
    rows = [json.loads(line) for line in (out / f'{split}.jsonl').read_text().splitlines()]
    cells = []
    for place, motion in enumerate(MOTIONS):
        # different digits for different motions
        found = [row for row in rows if row['motion'] == motion]
        for row in [found[(place + 5 * i) % len(found)] for i in range(per_motion) if found]:
            cells.append(draw_strip(out / row['video'], caption(row['digit'], row['motion'])))
    path = out / f'contact_sheet_{split}.png'
    save_png(tile(cells, columns=per_motion), path)
    return path


def main() -> None:
    """Write the clips, draw contact sheets, and print a summary."""
    args = parse_args()
    start = time.monotonic()
    out = Path(args.out)
    with one_sentence_errors():
        options = ClipOptions(args.train, args.test, args.size, args.frames, args.seed)
        written, total = write_clips(out, options)
        for split in options.folders:
            if written or not (out / f'contact_sheet_{split}.png').is_file():
                draw_sheet(out, split)
    clips = ', '.join(f'{number} in {split}/' for split, number in options.folders.items())
    what = f'wrote {written} of {total} files' if written else f'all {total} files were there already'
    print(f'{out}: clips of {args.frames} frames of {args.size}x{args.size} pixels, {clips}; ', end='')
    print(f'{what} ({time.monotonic() - start:.1f} s); look at contact_sheet_*.png')


if __name__ == '__main__':
    main()
