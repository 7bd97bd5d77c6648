"""Write the region features of images, which UNITER reads instead of pixels.

Regions are a detector's: those above the score, at least ten and at most a hundred an image, with the feature of its
map and the probabilities of classes. Or they are the boxes of annotations in COCO's format, and the model is any that
has maps. With --features crops each box is cut out of its image and encoded alone, so that its feature does not tell
where it is. The index of the output folder is written last: without it the regions are not complete.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import positive_int, probability

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm regions data/coco/train2017 --model NAME --out data/regions/train2017',
    'florence-mm regions pictures --boxes annotations.json --model NAME --out data/regions/pictures',
    'florence-mm regions pictures --boxes boxes.json --features crops --model NAME --out data/regions',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='a folder, or images')
    parser.add_argument('--boxes', help="annotations in COCO's format, whose boxes are the regions")
    parser.add_argument('--score-thr', type=probability, default=0.2, help='score of kept regions (default: 0.2)')
    parser.add_argument('--least', type=positive_int, default=10, help='as many are kept of any score (default: 10)')
    parser.add_argument('--most', type=positive_int, default=100, help='most regions of an image (default: 100)')
    parser.add_argument(
        '--features',
        choices=('map', 'crops'),
        default='map',
        help='of the maps of the image, or of each box alone, cut out and stretched to a square (default: map)',
    )
    parser.add_argument(
        '--crop-size', type=positive_int, help="side of these squares (default: the config's image_size)"
    )
    parser.add_argument('--out', required=True, help='folder for the region files')


def write_regions(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Write regions, and print a summary; returns the exit status."""
    from florence_mm.apis.region_inferencer import RegionInferencer
    from florence_mm.apis.results import report_failures
    from florence_mm.utils.words import counted

    inferencer = RegionInferencer(config, checkpoint, args.device, args.batch_size, args.precision)
    images = args.images[0] if len(args.images) == 1 else args.images
    results = inferencer.write(
        images,
        args.out,
        args.boxes,
        args.score_thr,
        args.least,
        args.most,
        skip_bad=True,
        features=args.features,
        crop_size=args.crop_size,
    )
    written = [result['regions'] for result in results if 'error' not in result]
    print(f'{args.out}: {counted(sum(written), "region")} of {counted(len(written), "image")}')
    return report_failures(results, 'image')


def _written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    return [('--out', Path(args.out, 'index.json'))]


COMMAND = ModelCommand(_add_own, write_regions, _written, read=lambda args: [args.boxes])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write regions with the chosen model."""
    return COMMAND.run(args)
