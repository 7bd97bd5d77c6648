"""Classify videos and write copies with the predictions (``florence-mm video``, with config and checkpoint first).

python tools/video.py CONFIG CHECKPOINT VIDEO... [--classes "a goal, a foul"] [--window 2] ...
"""

import sys

from florence_mm.commands import video
from florence_mm.commands.tool import run_with_config


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_with_config(video, video.recognize, 'videos', video.check)


if __name__ == '__main__':
    sys.exit(main())
