"""Search a folder of pictures or videos: the command ``florence-mm search`` as a script.

python tools/search.py index FOLDER --index DIR --model NAME
python tools/search.py "a dog on a beach" --index DIR
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('search')


if __name__ == '__main__':
    sys.exit(main())
