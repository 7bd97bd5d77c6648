"""Arguments by which commands choose a model, shared by those that run one on the user's files."""

import argparse
import os
from pathlib import Path
from typing import Any

from florence_mm.config.arguments import device, positive_int
from florence_mm.config.options import add_config_options
from florence_mm.config.precision import add_precision
from florence_mm.errors import UsageError

VARIABLE = 'FLORENCE_MM_MODEL'


def add_model_options(parser: argparse._ActionsContainer, inputs: str) -> None:
    """Add ``--model``, ``--checkpoint`` and what else says how a model runs.

    Args:
        parser: the command's parser, or a group of it.
        inputs: name of the inputs in the help, as in "images".
    """
    parser.add_argument(
        '--model',
        metavar='NAME',
        help=f'name of a model (florence-mm models lists them), or a config file; default: the variable {VARIABLE}',
    )
    parser.add_argument('--checkpoint', metavar='FILE', help="weights; default: those published for the model's name")
    add_run_options(parser, inputs)


def add_run_options(parser: argparse._ActionsContainer, inputs: str) -> None:
    """Add the options of how a model runs, which the scripts in ``tools/`` have too."""
    parser.add_argument('--batch-size', type=positive_int, default=1, help=f'{inputs} per batch (default: 1)')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')
    add_precision(parser)
    add_config_options(parser)


def add_positional_model(parser: argparse.ArgumentParser) -> None:
    """Add config and checkpoint as the first two arguments, as the scripts in ``tools/`` have them."""
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )


def choose_model(args: argparse.Namespace) -> tuple[Any, str | Path]:
    """Find config and checkpoint for an inferencer, see :func:`find_model`, and read the config.

    Returns:
        the config, with ``--cfg-options``, and the checkpoint.

    Raises:
        UsageError: no model was chosen, it has no weights, or the config is wrong.
    """
    find_model(args)
    return read_config(args), args.checkpoint


def read_config(args: argparse.Namespace) -> Any:
    """Read ``args.config`` with ``--cfg-options``."""
    from florence_mm.config.load import load_config

    return load_config(args.config, args.cfg_options)


def find_model(args: argparse.Namespace) -> None:
    """Set ``config`` and ``checkpoint`` to those of ``--model``, else of the variable.

    Args:
        args: the arguments of :func:`add_model_options`.

    Raises:
        UsageError: no model was chosen, or it has no weights.
    """
    from florence_mm.apis.named import checkpoint_and_inputs

    chosen = args.model or os.environ.get(VARIABLE, '').strip()
    if not chosen:
        raise UsageError(
            f'no model was chosen; give --model NAME (florence-mm models lists names), set {VARIABLE}=NAME once for '
            'all commands, or give --model CONFIG --checkpoint FILE'
        )
    if args.checkpoint is None and not _is_name(chosen):
        raise UsageError(f'{chosen} is a config, which needs weights; give --checkpoint FILE too')
    args.config = chosen
    if args.checkpoint is None:
        args.checkpoint = checkpoint_and_inputs(chosen, None, [])[0]


def _is_name(chosen: str) -> bool:
    from florence_mm.config.metafiles import is_model_name

    return is_model_name(chosen)
