"""Test a checkpoint: the command ``florence-mm test`` as a script, which launchers start.

python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--out FILE.pt] [--show-dir DIR] [--tta] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('test')


if __name__ == '__main__':
    sys.exit(main())
