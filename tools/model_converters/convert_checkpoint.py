"""Convert a checkpoint between public layouts and ours: florence-mm convert.

python tools/model_converters/convert_checkpoint.py swin_tiny_patch4_window7_224.pth swin_tiny.safetensors

Exit status: 0, or 2 with one sentence if the file cannot be converted.
"""

import argparse
import sys

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.commands import convert
from florence_mm.errors import one_sentence_errors


def main() -> int:
    """Convert the file."""
    parser = argparse.ArgumentParser(description=convert.__doc__.splitlines()[0])
    convert.add_arguments(parser)
    args = parser.parse_args()
    with one_sentence_errors():
        return convert.run(args)


if __name__ == '__main__':
    sys.exit(main())
