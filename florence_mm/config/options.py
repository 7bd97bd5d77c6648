"""Command-line arguments shared by tools, such as ``--cfg-options KEY=VALUE ...``."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .literals import literal

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
#: Variable that a launcher sets for each process.
_RANK_OF = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_LOCAL_RANK'}
_WORDS = {'true': True, 'false': False}
_OPEN, _CLOSE = '([{', ')]}'


class ConfigOptions(argparse.Action):
    """Collect ``key.with.dots=value`` arguments in a dict.

    Values are Python literals, ``dict(a=1)`` included; ``a,b`` and ``[a,b]`` are lists, ``(a,b)`` is a tuple, and
    anything else is a string. A malformed argument ends the command with a usage message.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Parse all arguments after the option; called by argparse."""
        options = dict(getattr(namespace, self.dest) or {})
        for argument in values or ():
            key, equals, text = argument.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f'{option_string} {argument}: expected KEY=VALUE')
            try:
                options[key] = parse_value(text)
            except ValueError as error:
                parser.error(f'{option_string} {argument}: {error}')
        setattr(namespace, self.dest, options)


class _Launcher(argparse.Action):
    """Keep the launcher's name; one whose environment is not there ends the command with a usage message."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        variable = _RANK_OF.get(values)
        if variable is not None and variable not in os.environ:
            parser.error(
                f'--launcher {values}: {variable} is not set, so the process was not started by {values}; '
                'start it with tools/dist_*.sh or tools/slurm_*.sh, or leave the option out'
            )
        setattr(namespace, self.dest, values)


def add_config_options(parser: argparse.ArgumentParser, example: str | None = None) -> None:
    """Add ``--cfg-options``; the help shows ``example``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='put values on the config' + (f', for example {example}' if example else ''),
    )


def add_run_arguments(parser: argparse.ArgumentParser, written: str, example: str) -> None:
    """Add the arguments of runs: ``--work-dir``, ``--cfg-options``, ``--launcher``.

    Args:
        parser (ArgumentParser): The tool's parser.
        written (str): What is written to the work folder, for the help.
        example (str): Example of ``--cfg-options``, for the help.
    """
    parser.add_argument('--work-dir', help=f'where {written} go; default work_dirs/CONFIG_NAME')
    add_config_options(parser, example)
    add_launcher(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and the local rank that old launchers pass."""
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', action=_Launcher, help='how the processes were started'
    )
    # torch.distributed.launch passes this instead of the environment variable
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def set_local_rank(args: argparse.Namespace) -> None:
    """Put the local rank of the command line into the environment, where mmengine reads it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def parse_value(text: str) -> Any:
    """Convert a command-line text to a value (see :class:`ConfigOptions`).

    Raises:
        ValueError: a bracket or quotation mark is not closed, or a ``dict()`` holds more than literals.

    >>> [parse_value(text) for text in ('true', '1e-3', '(2,3)', 'adamw', '4,8', '{"a": [1]}')]
    [True, 0.001, (2, 3), 'adamw', [4, 8], {'a': [1]}]
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    with suppress(ValueError, SyntaxError):
        value = literal(text)
        return list(value) if isinstance(value, tuple) and not text.startswith('(') else value
    if text.startswith('dict('):
        raise ValueError(f'{text!r} is no dict of literals; put texts into quotation marks')
    parts = _split(text)
    if len(parts) > 1:
        return [parse_value(part) for part in parts]
    if text[:1] == '[' and text[-1:] == ']':
        return [parse_value(part) for part in _split(text[1:-1])]
    if text[:1] == '(' and text[-1:] == ')':
        return tuple(parse_value(part) for part in _split(text[1:-1]))
    return text


def _split(text: str) -> list[str]:
    """Split at commas outside brackets; a comma at the end adds no part."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == ',' and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    if depth:
        raise ValueError(f'the brackets in {text!r} do not match')
    if text[start:].strip():
        parts.append(text[start:])
    return parts
