"""Write captions of images with a vision-language model.

Captions are printed, with --out-dir drawn below the images, and with --out written as JSON. Exit status: 0; 1 if some
images failed and others did not (each has an error in the file and a sentence on the screen); 2 with one sentence if
the model is unusable, or all images failed.
"""

import argparse

from .ask import add_images, ask, check, written
from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm caption photo.jpg --model NAME',
    'florence-mm caption photos --out captions.json --out-dir captioned',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.set_defaults(question=[], match=[], caption=True, top=1)


COMMAND = ModelCommand(_add_own, ask, written, check=check)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write captions with the chosen model."""
    return COMMAND.run(args)
