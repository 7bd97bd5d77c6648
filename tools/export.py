"""Export a model to ONNX, OpenVINO or torch.export files, and compare them with it.

    python tools/export.py CONFIG [CHECKPOINT] OUT [--classes "cat, dog"] [--part image] ...

See :mod:`florence_mm.commands.export`.
"""

import argparse
import sys

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis.results import print_any_name
from florence_mm.commands import export
from florence_mm.errors import one_sentence_errors


def main() -> int:
    """Parse the arguments and run the command."""
    parser = argparse.ArgumentParser(description=export.__doc__.partition('\n')[0])
    export.add_arguments(parser)
    args = parser.parse_args()
    print_any_name()
    with one_sentence_errors():
        return export.run(args)


if __name__ == '__main__':
    sys.exit(main())
