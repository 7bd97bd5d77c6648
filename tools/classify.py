"""Classify images by free text (``florence-mm classify``, with config and checkpoint first).

python tools/classify.py CONFIG CHECKPOINT IMAGE... [--classes "a dog, a cat"] [--out-dir DIR] ...
"""

import sys

from florence_mm.commands import classify
from florence_mm.commands.tool import run_with_config


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_with_config(classify, classify.classify, 'images')


if __name__ == '__main__':
    sys.exit(main())
