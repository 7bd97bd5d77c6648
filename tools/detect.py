"""Detect objects in images and draw them.

    python tools/detect.py CONFIG CHECKPOINT IMAGE... [--classes "cat, dog, bench"] [--out-dir DIR] ...

IMAGE is a file or a folder. Images with boxes and ``detections.json`` go to the output folder. Exit status: 0, or
2 with one sentence if config, checkpoint, classes or an image are unusable (the other images are still processed).
"""

import argparse
import sys

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis import DetectionInferencer
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import one_sentence_errors


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Detect objects in images and draw them.')
    parser.add_argument('config', help='config file, or PACKAGE::FILE')
    parser.add_argument('checkpoint', help='.pth or .safetensors file')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, or a folder of images')
    parser.add_argument('--classes', help='names separated by commas; needed by zero-shot detectors without classes')
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of reported boxes (default: 0.3)')
    parser.add_argument('--out-dir', default='detections', help='folder for the results (default: detections)')
    parser.add_argument('--batch-size', type=int, default=1, help='images per batch (default: 1)')
    parser.add_argument('--device', help='as torch names it, for example cuda:1; default: the GPU if there is one')
    add_config_options(parser)
    return parser.parse_args()


def main() -> int:
    """Detect objects, write the results, and print a summary."""
    args = parse_args()
    with one_sentence_errors():
        cfg = load_config(args.config, args.cfg_options)
        inferencer = DetectionInferencer(cfg, args.checkpoint, args.device, args.templates, args.batch_size)
        results = inferencer(args.images, args.classes, args.score_thr, args.out_dir, skip_bad=True)
    bad = [result['error'] for result in results if 'error' in result]
    found = sum(len(result['boxes']) for result in results if 'error' not in result)
    print(f'{args.out_dir}: {len(results) - len(bad)} images and detections.json, {found} objects')
    for sentence in bad:
        print(f'error: {sentence}', file=sys.stderr)
    return 2 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
