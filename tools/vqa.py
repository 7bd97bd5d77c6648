"""Ask a vision-language model about images (``florence-mm ask``, with config and checkpoint first).

python tools/vqa.py CONFIG CHECKPOINT IMAGE... [--question TEXT]... [--match SENTENCE]... [--caption] ...
"""

import sys

from florence_mm.commands import ask
from florence_mm.commands.tool import run_with_config


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_with_config(ask, ask.ask, 'images', ask.check)


if __name__ == '__main__':
    sys.exit(main())
