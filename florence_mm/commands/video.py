"""Classify videos and write copies with the predictions.

Copies of the videos with the predictions below the image, and videos.json, go to the output folder; until the end,
finished results are lines of videos.json.part. With --activation-map a strip of frames is drawn with the activation map
of the best class. Exit status: 0; 1 if some videos could not be processed and others were (each has an error in the
file and a sentence on the screen); 2 with one sentence if model or classes are unusable, or no video could be
processed.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import positive_float, positive_int
from florence_mm.errors import UsageError

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm video clip.mp4 --model NAME',
    'florence-mm video clips --classes "a goal, a foul" --window 2 --out-dir recognized',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('videos', nargs='+', metavar='VIDEO', help='a video, a folder, a URL or a pattern as "*.mp4"')
    parser.add_argument('--classes', help='names separated by commas, free text for a two-tower model')
    parser.add_argument(
        '--class-names', metavar='FILE', help='names of the labels of a model with fixed classes, one per line'
    )
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument('--top', type=positive_int, default=5, help='number of classes listed (default: 5)')
    parser.add_argument(
        '--window', type=positive_float, metavar='SECONDS', help='also classify a sliding window of this length'
    )
    parser.add_argument(
        '--stride', type=positive_float, metavar='SECONDS', help='time between windows (default: half a window)'
    )
    parser.add_argument('--out-dir', default='recognized', help='folder for the results (default: recognized)')
    parser.add_argument(
        '--activation-map', metavar='PNG', help='draw the activation map of the best class over the frames of one video'
    )
    parser.add_argument('--activation-class', metavar='NAME', help='the class to draw instead of the best one')
    parser.add_argument('--activation-stage', type=int, metavar='N', help='stage of the backbone (default: the last)')
    parser.add_argument('--backend', default='pyav', help="decoder: 'pyav' (default)")


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before the model is looked for; the videos are listed.

    Raises:
        UsageError: options do not fit together, or there are no videos.
    """
    if args.activation_map and not args.activation_map.lower().endswith('.png'):
        raise UsageError(f'--activation-map {args.activation_map} must end in .png')
    if not args.activation_map and (args.activation_class or args.activation_stage is not None):
        raise UsageError('--activation-class and --activation-stage say how --activation-map is drawn; give it')
    from florence_mm.apis.base import list_inputs
    from florence_mm.apis.video_inputs import VIDEOS

    args.videos = list_inputs(args.videos, VIDEOS)
    if args.activation_map and len(args.videos) != 1:
        raise UsageError(f'--activation-map draws one video, but there are {len(args.videos)}; name one')


def recognize(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Classify videos, write the results, and print a summary; returns the exit status."""
    from florence_mm.apis.results import print_any_name, report_failures
    from florence_mm.apis.video_inferencer import VideoInferencer
    from florence_mm.language.class_names import load_class_names
    from florence_mm.utils.words import counted

    print_any_name()
    names = load_class_names(args.class_names)
    options = names, args.templates, args.batch_size, args.backend, args.precision
    inferencer = VideoInferencer(config, checkpoint, args.device, *options)
    results = inferencer(args.videos, args.classes, args.top, args.window, args.stride, args.out_dir)
    if args.activation_map and 'error' not in results[0]:
        inferencer.draw_activation(
            results[0]['file'], args.activation_map, args.activation_class, args.classes, args.activation_stage
        )
    found = [result for result in results if 'error' not in result]
    for result in found:
        best = ', '.join(f'{name} {score:.2f}' for name, score in zip(result['labels'], result['scores'], strict=True))
        print(f'{result["file"]}: {best}')
    print(f'{args.out_dir}: {counted(len(found), "video")} and videos.json')
    return report_failures(results, 'video')


def _written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    return [('--out-dir', Path(args.out_dir, 'videos.json')), ('--activation-map', args.activation_map)]


COMMAND = ModelCommand(_add_own, recognize, _written, 'videos', 'windows', check, lambda args: [args.class_names])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Classify the videos with the chosen model."""
    return COMMAND.run(args)
