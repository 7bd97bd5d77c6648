"""Solve a task about images with a model that writes: detection, phrases, polygons, texts.

--task is the name of a task, or the mark by which public code names it; some take a --text, such as a caption whose
phrases are located, and some a --region, whose class, description or outline is written. Results are printed, with
--out-dir drawn, and with --out written as JSON, with coordinates in pixels.
Exit status: 0; 1 if some images failed and others did not (each has an error in the file and a sentence on the
screen); 2 with one sentence if the model or the task are unusable, or all images failed.
"""

import argparse
from pathlib import Path

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm solve photo.jpg --task detection --out-dir solved --model NAME',
    'florence-mm solve photo.jpg --task phrase_grounding --text "a dog and its ball"',
    'florence-mm solve photo.jpg --task region_category --region 10 20 300 400',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, a folder, a URL or a pattern as "*.jpg"')
    parser.add_argument('--task', required=True, metavar='NAME', help='the task, such as detection, caption or ocr')
    parser.add_argument('--text', metavar='TEXT', help='the text that the task takes: a caption, a phrase, class names')
    parser.add_argument(
        '--region', nargs=4, type=float, metavar=('X0', 'Y0', 'X1', 'Y1'), help='the box that the task takes, in pixels'
    )
    parser.add_argument('--out', metavar='JSON', help='also write the results to this file')
    parser.add_argument('--out-dir', metavar='DIR', help='also draw the answer on each image into this folder')


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before the model is looked for; the images are listed.

    Raises:
        UsageError: there are no images, or the task cannot be asked so.
    """
    from florence_mm.apis.base import list_pictures
    from florence_mm.apis.task_inferencer import check_question

    args.images = list_pictures(args.images)
    check_question(args.task, args.text, args.region)


def solve(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Run the model, print and write the results; returns the exit status."""
    from florence_mm.apis.results import print_any_name, report_failures
    from florence_mm.apis.task_inferencer import TaskInferencer
    from florence_mm.utils.words import counted

    print_any_name()
    inferencer = TaskInferencer(config, checkpoint, args.device, args.batch_size, args.precision)
    results = inferencer(args.images, args.task, args.text, args.region, args.out, out_dir=args.out_dir or None)
    good = [result for result in results if 'error' not in result]
    for result in good:
        show(result)
    for place in (args.out, args.out_dir):
        if place:
            print(f'{place}: {counted(len(good), "image")}')
    return report_failures(results, 'image')


def show(result: dict) -> None:
    """Print the answer about an image."""
    print(f'{result["file"]}:')
    if 'answer' in result:
        print(f'  {result["answer"]}')
    for region in result.get('regions', []):
        corners = region.get('box') or region.get('quad') or region.get('polygons')
        print('  ' + ' '.join(filter(None, (f'{region.get("score", 0):.2f}', region['text'], str(corners)))))
    for fault in result['faults']:
        print(f'  ({fault})')


def written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    """Option and path of each file that is written."""
    return [('--out', args.out)]


COMMAND = ModelCommand(_add_own, solve, written, check=check)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask the chosen model."""
    return COMMAND.run(args)
