"""The option ``--precision`` of the commands that predict, and of ``test``."""

import argparse

#: What a model may be asked to infer in.
PRECISIONS = ('auto', 'fp32', 'bf16', 'int8')


def add_precision(parser: argparse._ActionsContainer) -> None:
    """Add ``--precision``."""
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='fp32',
        help='fp32 (default); bf16: encoders in bfloat16; auto: bf16 if the processor has it; int8: of exported files',
    )
