"""Classify videos and write copies with the predictions.

    python tools/video.py CONFIG CHECKPOINT VIDEO... [--classes "a goal, a foul"] [--window 2] [--out-dir DIR] ...

VIDEO is a file or a folder. Copies of the videos with the predictions below the image, and ``videos.json``, go to the
output folder; until the end, finished results are lines of ``videos.json.part``. ``--activation-map`` draws a strip of
frames with the activation map of the best class. Exit status: 0; 1 if some videos could not be processed and others
were (each has an ``error`` in the file and a sentence on the screen); 2 with one sentence if config, checkpoint or
classes are unusable, or no video could be processed.
"""

import argparse
import sys
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis import VideoInferencer
from florence_mm.apis.base import list_inputs
from florence_mm.apis.named import checkpoint_and_inputs
from florence_mm.apis.results import print_any_name, report_failures
from florence_mm.apis.video_inputs import VIDEOS
from florence_mm.config.arguments import device, positive_float, positive_int
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.language.class_names import load_class_names
from florence_mm.utils.files import refuse_overwriting


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Classify videos and write copies with the predictions.')
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )
    parser.add_argument('videos', nargs='+', metavar='VIDEO', help='a video, or a folder of videos')
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
    parser.add_argument('--batch-size', type=positive_int, default=1, help='windows per batch (default: 1)')
    parser.add_argument('--backend', default='pyav', help="decoder: 'pyav' (default)")
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')
    add_config_options(parser)
    return parser.parse_args()


def main() -> int:
    """Classify videos, write the results, and print a summary."""
    args = parse_args()
    print_any_name()
    with one_sentence_errors():
        args.checkpoint, args.videos = checkpoint_and_inputs(args.config, args.checkpoint, args.videos)
        if args.activation_map and not args.activation_map.lower().endswith('.png'):
            raise UsageError(f'--activation-map {args.activation_map} must end in .png')
        if not args.activation_map and (args.activation_class or args.activation_stage is not None):
            raise UsageError('--activation-class and --activation-stage say how --activation-map is drawn; give it')
        files = list_inputs(args.videos, VIDEOS)
        if args.activation_map and len(files) != 1:
            raise UsageError(f'--activation-map draws one video, but there are {len(files)}; name one')
        inputs = [args.config, args.checkpoint, args.class_names]
        refuse_overwriting(Path(args.out_dir, 'videos.json'), inputs, '--out-dir')
        if args.activation_map:
            refuse_overwriting(args.activation_map, [*inputs, *files], '--activation-map')
        cfg = load_config(args.config, args.cfg_options)
        names = load_class_names(args.class_names)
        inferencer = VideoInferencer(
            cfg, args.checkpoint, args.device, names, args.templates, args.batch_size, args.backend
        )
        results = inferencer(files, args.classes, args.top, args.window, args.stride, args.out_dir)
        if args.activation_map and 'error' not in results[0]:
            inferencer.draw_activation(
                results[0]['file'], args.activation_map, args.activation_class, args.classes, args.activation_stage
            )
    found = [result for result in results if 'error' not in result]
    for result in found:
        best = ', '.join(f'{name} {score:.2f}' for name, score in zip(result['labels'], result['scores'], strict=True))
        print(f'{result["file"]}: {best}')
    print(f'{args.out_dir}: {len(found)} videos and videos.json')
    return report_failures(results, 'videos')


if __name__ == '__main__':
    sys.exit(main())
