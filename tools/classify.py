"""Classify images by free text (``florence-mm classify``, with config and checkpoint first).

python tools/classify.py CONFIG CHECKPOINT IMAGE... [--classes "a dog, a cat"] [--out-dir DIR] ...
"""

import sys

from florence_mm.commands import classify


def main() -> int:
    """Run the command with the arguments of the process."""
    return classify.COMMAND.run_tool(classify.__doc__)


if __name__ == '__main__':
    sys.exit(main())
