"""Classify videos and write copies with the predictions (``florence-mm video``, with config and checkpoint first).

python tools/video.py CONFIG CHECKPOINT VIDEO... [--classes "a goal, a foul"] [--window 2] ...
"""

import sys

from florence_mm.commands import video


def main() -> int:
    """Run the command with the arguments of the process."""
    return video.COMMAND.run_tool(video.__doc__)


if __name__ == '__main__':
    sys.exit(main())
