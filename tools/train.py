"""Train a model from a config: the command ``florence-mm train`` as a script, which launchers start.

python tools/train.py configs/unicl/NAME.py [--work-dir DIR] [--resume [CHECKPOINT]] [--smoke] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('train')


if __name__ == '__main__':
    sys.exit(main())
