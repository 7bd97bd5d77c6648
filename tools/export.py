"""Export a model to ONNX, OpenVINO or torch.export files: the command ``florence-mm export`` as a script.

python tools/export.py CONFIG [CHECKPOINT] OUT [--classes "cat, dog"] [--part image] ...
"""

import sys

from florence_mm.commands.main import run_tool


def main() -> int:
    """Run the command with the arguments of the process."""
    return run_tool('export')


if __name__ == '__main__':
    sys.exit(main())
