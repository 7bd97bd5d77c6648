"""Detect objects in images and draw them.

Images with boxes and detections.json go to the output folder; until the end, finished results are lines of
detections.json.part. Exit status: 0; 1 if some images failed and others did not (each has an error in the file and a
sentence on the screen); 2 with one sentence if model or classes are unusable, or all images failed.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import probability

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm detect street.jpg --classes "car, bicycle, dog" --model NAME',
    'florence-mm detect photos --score-thr 0.5 --out-dir detections',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, a folder, a URL or a pattern as "*.jpg"')
    parser.add_argument('--classes', help='names separated by commas; needed by zero-shot detectors without classes')
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument(
        '--score-thr', type=probability, default=0.3, help='lowest score of reported boxes (default: 0.3)'
    )
    parser.add_argument('--out-dir', default='detections', help='folder for the results (default: detections)')


def detect(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Detect objects, write the results, and print a summary; returns the exit status."""
    from florence_mm.apis.detection_inferencer import DetectionInferencer
    from florence_mm.apis.results import print_any_name, report_failures
    from florence_mm.utils.words import counted
    from florence_mm.visualization.detections import MOST

    print_any_name()
    inferencer = DetectionInferencer(config, checkpoint, args.device, args.templates, args.batch_size, args.precision)
    results = inferencer(args.images, args.classes, args.score_thr, args.out_dir)
    boxes = [result['boxes'] for result in results if 'error' not in result]
    objects = counted(sum(map(len, boxes)), 'object')
    print(f'{args.out_dir}: {counted(len(boxes), "image")} and detections.json, {objects}')
    crowded = sum(len(one) > MOST for one in boxes)
    if crowded:
        print(f'{counted(crowded, "drawing")} with the {MOST} best boxes only; all are in detections.json')
    return report_failures(results, 'image')


def _written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    return [('--out-dir', Path(args.out_dir, 'detections.json'))]


COMMAND = ModelCommand(_add_own, detect, _written)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Detect objects with the chosen model."""
    return COMMAND.run(args)
