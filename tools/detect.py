"""Detect objects in images and draw them (``florence-mm detect``, with config and checkpoint first).

python tools/detect.py CONFIG CHECKPOINT IMAGE... [--classes "cat, dog, bench"] [--out-dir DIR] ...
"""

import sys

from florence_mm.commands import detect


def main() -> int:
    """Run the command with the arguments of the process."""
    return detect.COMMAND.run_tool(detect.__doc__)


if __name__ == '__main__':
    sys.exit(main())
