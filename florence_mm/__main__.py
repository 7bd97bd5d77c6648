"""``python -m florence_mm doctor``."""

import argparse
import sys

from . import doctor


def main() -> int:
    """Run the command given on the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog='python -m florence_mm')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('doctor', help='print versions, patched gaps and conflicts; exit status 1 on a conflict')
    parser.parse_args()
    return doctor.run()


if __name__ == '__main__':
    sys.exit(main())
