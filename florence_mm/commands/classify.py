"""Classify images by free text, or with the classes of a model.

Results are printed, with --out written as JSON, and with --out-dir drawn, each image with a bar for each class, beside
classes.json. Until the end, finished results are lines of the JSON file's name with .part. Exit status: 0; 1 if some
images failed and others did not (each has an error in the file and a sentence on the screen); 2 with one sentence if
model or classes are unusable, or all images failed.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import positive_int

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm classify photo.jpg --classes "a dog, a cat" --model NAME',
    'florence-mm classify photos --classes "beach, forest, city" --templates none --out-dir classified',
    'florence-mm classify photos --features features.npy --model CONFIG --checkpoint FILE',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, a folder, a URL or a pattern as "*.jpg"')
    parser.add_argument('--classes', help="names separated by commas; default: the model's, if it has some")
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument('--top', type=positive_int, default=5, help='number of classes listed (default: 5)')
    parser.add_argument('--features', metavar='NPY', help='also write the features of the images, a row each')
    parser.add_argument('--out', metavar='JSON', help='also write the results to this file')
    parser.add_argument('--out-dir', metavar='DIR', help='also draw each image with its classes into this folder')


def classify(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Classify, write the results, and print each as it is made; returns the exit status."""
    from florence_mm.apis.image_inferencer import ImageInferencer
    from florence_mm.apis.results import print_any_name, report_failures
    from florence_mm.utils.words import counted

    print_any_name()
    inferencer = ImageInferencer(config, checkpoint, args.device, args.batch_size, args.precision)
    kept = []
    asked = args.classes, args.templates, args.top, args.out_dir or None, args.features or False
    for result in inferencer.stream(args.images, *asked, out=args.out or None):
        if 'labels' in result:
            pairs = zip(result['labels'], result['scores'], strict=True)
            print(f'{result["file"]}: ' + ', '.join(f'{name} {score:.2f}' for name, score in pairs), flush=True)
        kept.append({key: result[key] for key in ('file', 'error') if key in result})
    good = counted(sum('error' not in one for one in kept), 'image')
    for place, what in ((args.out, ''), (args.out_dir, ' drawn'), (args.features, ', a row each')):
        if place:
            print(f'{place}: {good}{what}')
    return report_failures(kept, 'image')


def _written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    drawn = args.out_dir and Path(args.out_dir, 'classes.json')
    return [('--out', args.out), ('--out-dir', drawn), ('--features', args.features)]


COMMAND = ModelCommand(_add_own, classify, _written)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Classify the images with the chosen model."""
    return COMMAND.run(args)
