"""Caption pictures and filter captions: the command ``florence-mm capfilt`` as a script.

python tools/capfilt.py PAIRS --captioner NAME --filter NAME --out FOLDER [--threshold 0.5] [--shards] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('capfilt')


if __name__ == '__main__':
    sys.exit(main())
