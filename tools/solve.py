"""Solve a task with a model that writes (``florence-mm solve``, with config and checkpoint first).

python tools/solve.py CONFIG CHECKPOINT IMAGE... --task NAME [--text TEXT] [--region X0 Y0 X1 Y1] ...
"""

import sys

from florence_mm.commands import solve


def main() -> int:
    """Run the command with the arguments of the process."""
    return solve.COMMAND.run_tool(solve.__doc__)


if __name__ == '__main__':
    sys.exit(main())
