"""Detect objects in images and draw them.

    python tools/detect.py CONFIG CHECKPOINT IMAGE... [--classes "cat, dog, bench"] [--out-dir DIR] ...

IMAGE is a file or a folder. Images with boxes and ``detections.json`` go to the output folder; until the end, finished
results are lines of ``detections.json.part``. Exit status: 0; 1 if some images failed and others did not (each has an
``error`` in the file and a sentence on the screen); 2 with one sentence if config, checkpoint or classes are
unusable, or all images failed.
"""

import argparse
import sys
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis import DetectionInferencer
from florence_mm.apis.named import checkpoint_and_inputs
from florence_mm.apis.results import print_any_name, report_failures
from florence_mm.config.arguments import device, positive_int, probability
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import one_sentence_errors
from florence_mm.utils.files import refuse_overwriting


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Detect objects in images and draw them.')
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, or a folder of images')
    parser.add_argument('--classes', help='names separated by commas; needed by zero-shot detectors without classes')
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument(
        '--score-thr', type=probability, default=0.3, help='lowest score of reported boxes (default: 0.3)'
    )
    parser.add_argument('--out-dir', default='detections', help='folder for the results (default: detections)')
    parser.add_argument('--batch-size', type=positive_int, default=1, help='images per batch (default: 1)')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')
    add_config_options(parser)
    return parser.parse_args()


def main() -> int:
    """Detect objects, write the results, and print a summary."""
    args = parse_args()
    print_any_name()
    with one_sentence_errors():
        args.checkpoint, args.images = checkpoint_and_inputs(args.config, args.checkpoint, args.images)
        refuse_overwriting(Path(args.out_dir, 'detections.json'), [args.config, args.checkpoint], '--out-dir')
        cfg = load_config(args.config, args.cfg_options)
        inferencer = DetectionInferencer(cfg, args.checkpoint, args.device, args.templates, args.batch_size)
        results = inferencer(args.images, args.classes, args.score_thr, args.out_dir)
    boxes = [result['boxes'] for result in results if 'error' not in result]
    print(f'{args.out_dir}: {len(boxes)} images and detections.json, {sum(map(len, boxes))} objects')
    return report_failures(results, 'images')


if __name__ == '__main__':
    sys.exit(main())
