"""Write the region features of images (``florence-mm regions``, with config and checkpoint first).

python tools/regions.py CONFIG CHECKPOINT FOLDER --out FOLDER [--boxes FILE] [--score-thr 0.2] ...
"""

import sys

from florence_mm.commands import regions


def main() -> int:
    """Run the command with the arguments of the process."""
    return regions.COMMAND.run_tool(regions.__doc__)


if __name__ == '__main__':
    sys.exit(main())
