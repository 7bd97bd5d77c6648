"""Draw samples of a config's data set after its pipeline, with texts, labels and boxes.

    python tools/analysis_tools/browse_dataset.py configs/unicl/NAME.py --output-dir work_dirs/browse

Works with configs of florence_mm, mmdet, mmpretrain and mmaction2 whose samples have an image.
"""

import argparse
from collections import Counter
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import non_negative_int, positive_int, seed
from florence_mm.config.check import check_config
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.registry import DATASETS
from florence_mm.utils.files import lies_in
from florence_mm.utils.progress import ProgressLog
from florence_mm.utils.seeded import seed_everything_for_sample
from florence_mm.visualization.canvas import save_png, tile
from florence_mm.visualization.samples import draw_sample

#: Side of a drawn sample.
MOST_PIXELS = 4096


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Draw samples of a data set after its pipeline.')
    parser.add_argument('config', help='config file, or PACKAGE::FILE')
    parser.add_argument('--output-dir', required=True, help='folder for the drawings')
    parser.add_argument('--phase', default='train', choices=('train', 'val', 'test'), help='which data set')
    parser.add_argument('--number', type=positive_int, default=32, help='number of samples (default: 32)')
    parser.add_argument('--start', type=non_negative_int, default=0, help='the first sample (default: 0)')
    parser.add_argument(
        '--repeat', type=positive_int, default=1, help='draw each sample this many times with different seeds'
    )
    parser.add_argument('--contact-sheet', action='store_true', help='one drawing of all samples, classes in turn')
    parser.add_argument('--columns', type=positive_int, default=8, help='samples in a row of the sheet (default: 8)')
    parser.add_argument('--size', type=positive_int, default=240, help='side of a sample in pixels (default: 240)')
    parser.add_argument('--seed', type=seed, default=0, help='seed of the random transforms')
    add_config_options(parser)
    return parser.parse_args()


def is_bgr(cfg: ConfigDict) -> bool:
    """Whether the pipeline gives BGR images, which the model's preprocessor converts to RGB."""
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'))


def labels_of(dataset: Sized) -> list[int]:
    """The class of each sample, if it has one that is known before the sample is loaded; otherwise 0 for all."""
    if not hasattr(dataset, 'get_cat_ids'):
        return [0] * len(dataset)
    classes = (dataset.get_cat_ids(index) for index in range(len(dataset)))
    return [int(ids[0]) if len(ids) else 0 for ids in classes]


def in_turn(labels: Sequence[int]) -> list[int]:
    """Order samples by taking one of each class in turn.

    >>> in_turn([0, 0, 0, 1, 2, 2])
    [0, 3, 4, 1, 5, 2]
    """
    seen: Counter[int] = Counter()
    rounds = []
    for label in labels:
        rounds.append(seen[label])
        seen[label] += 1
    return sorted(range(len(labels)), key=lambda index: (rounds[index], index))


def refuse_data_folder(sample: Any, folder: str) -> None:
    """Refuse the folder of the drawn image, as drawings are named as images of data sets often are.

    Raises:
        UsageError: the sample's image is in it.
    """
    file = sample.get('img_path') if hasattr(sample, 'get') else None
    if file and lies_in(file, folder):
        raise UsageError(f'--output-dir {folder} holds the image {file} of the data set; choose another folder')


def main() -> None:
    """Build the data set and draw."""
    args = parse_args()
    with one_sentence_errors():
        if args.size > MOST_PIXELS:
            raise UsageError(f'--size {args.size} is more than a picture should have; give at most {MOST_PIXELS}')
        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
        init_default_scope(cfg.get('default_scope') or 'florence_mm')
        loader = cfg.get(f'{args.phase}_dataloader')
        if loader is None:
            raise UsageError(f'config {args.config} has no {args.phase}_dataloader; choose another --phase')
        dataset = DATASETS.build(loader['dataset'])
        bgr = is_bgr(cfg)
        class_names = getattr(dataset, 'metainfo', {}).get('classes') or ()
        order = in_turn(labels_of(dataset)) if args.contact_sheet else range(len(dataset))
        indices = order[args.start : args.start + args.number]
        if not indices:
            raise UsageError(f'--start {args.start} leaves nothing to draw; the data set has {len(dataset)} samples')
        pictures = []
        progress = ProgressLog('drawing', len(indices) * args.repeat)
        for number in range(len(indices) * args.repeat):
            index, copy = indices[number // args.repeat], number % args.repeat
            seed_everything_for_sample(args.seed * 1_000_003 + index * args.repeat + copy)
            packed = dataset[index]
            refuse_data_folder(packed.get('data_samples'), args.output_dir)
            picture = draw_sample(packed, class_names, bgr, args.size)
            if args.contact_sheet:
                pictures.append(picture)
            else:
                name = f'{index:06d}.png' if args.repeat == 1 else f'{index:06d}_{copy}.png'
                save_png(picture, Path(args.output_dir) / name)
            progress.update(number + 1)
        if args.contact_sheet:
            save_png(tile(pictures, args.columns), Path(args.output_dir) / f'{args.phase}.png')
        what = f'{args.phase}.png' if args.contact_sheet else f'{number + 1} pictures'
        print(f'{args.output_dir}: {what} of {len(indices)} of the {len(dataset)} samples')


if __name__ == '__main__':
    main()
