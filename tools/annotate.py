"""Annotate pictures, filter and refine the annotations: the command ``florence-mm annotate`` as a script.

python tools/annotate.py CONFIG [--out FOLDER] [--rounds 2] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('annotate')


if __name__ == '__main__':
    sys.exit(main())
