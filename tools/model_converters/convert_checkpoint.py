"""Convert a checkpoint between public layouts and ours: the command ``florence-mm convert`` as a script.

python tools/model_converters/convert_checkpoint.py swin_tiny_patch4_window7_224.pth swin_tiny.safetensors

Exit status: 0, or 2 with one sentence if the file cannot be converted.
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('convert')


if __name__ == '__main__':
    sys.exit(main())
