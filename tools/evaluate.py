"""Evaluate a checkpoint by the paper's protocols: the command ``florence-mm evaluate`` as a script.

python tools/evaluate.py --checkpoint FILE [--suite florence] [--config FILE] [--data-root DIR] [--only GLOB ...] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('evaluate')


if __name__ == '__main__':
    sys.exit(main())
