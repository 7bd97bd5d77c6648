"""Curate raw image-text pairs into shards: the command ``florence-mm curate`` as a script.

python tools/curate.py configs/curation/NAME.py [--work FOLDER] [--out FOLDER] [--workers N] [--engine ray] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('curate')


if __name__ == '__main__':
    sys.exit(main())
