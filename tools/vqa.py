"""Ask a vision-language model about images (``florence-mm ask``, with config and checkpoint first).

python tools/vqa.py CONFIG CHECKPOINT IMAGE... [--question TEXT]... [--match SENTENCE]... [--caption] ...
"""

import sys

from florence_mm.commands import ask


def main() -> int:
    """Run the command with the arguments of the process."""
    return ask.COMMAND.run_tool(ask.__doc__)


if __name__ == '__main__':
    sys.exit(main())
