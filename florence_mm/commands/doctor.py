"""Print versions, patched gaps and conflicts, with the command that resolves each.

Exit status: 0, or 1 if there is a conflict.
"""

import argparse

EXAMPLES = ('florence-mm doctor',)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    from florence_mm import doctor

    return doctor.run()
