"""Argument types for argparse: numbers with a range, seeds and devices.

Each is a function for ``add_argument(..., type=...)``, and refuses a text with one sentence that says what is accepted.
"""

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

#: Largest seed that numpy takes.
MAX_SEED = 2**32 - 1

_Number = TypeVar('_Number', int, float)


def whole_number(text: str, lowest: int | None = None, highest: int | None = None) -> int:
    """Convert a text to an integer within a range; both bounds are included.

    >>> whole_number('3', lowest=1)
    3
    >>> whole_number('0', lowest=1)
    Traceback (most recent call last):
    argparse.ArgumentTypeError: '0' is not accepted; give a whole number of at least 1
    """
    return _in_range(text, int, 'a whole number', lowest, highest)


def number(text: str, lowest: float | None = None, highest: float | None = None) -> float:
    """Convert a text to a finite float within a range; both bounds are included.

    >>> number('1e-3', lowest=0)
    0.001
    >>> number('nan')
    Traceback (most recent call last):
    argparse.ArgumentTypeError: 'nan' is not accepted; give a finite number
    """
    return _in_range(text, float, 'a finite number', lowest, highest)


def positive_int(text: str) -> int:
    """Convert a text to an integer of at least 1."""
    return whole_number(text, lowest=1)


def non_negative_int(text: str) -> int:
    """Convert a text to an integer of at least 0."""
    return whole_number(text, lowest=0)


def port(text: str) -> int:
    """Convert a text to a port of TCP that a server may be given, 1 to 65535."""
    return whole_number(text, lowest=1, highest=65535)


def seed(text: str) -> int:
    """Convert a text to a seed that torch, numpy and Python's ``random`` all take, 0 to 2**32 - 1."""
    return whole_number(text, lowest=0, highest=MAX_SEED)


def finite_float(text: str) -> float:
    """Convert a text to a finite float."""
    return number(text)


def non_negative_float(text: str) -> float:
    """Convert a text to a finite float of at least 0."""
    return number(text, lowest=0)


def positive_float(text: str) -> float:
    """Convert a text to a finite float above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not accepted; give a finite number above 0')
    return value


def probability(text: str) -> float:
    """Convert a text to a float from 0 to 1."""
    return number(text, lowest=0, highest=1)


def device(text: str) -> str:
    """Check that a device is one of this machine's; returns the text.

    >>> device('cpu')
    'cpu'
    >>> device('gpu')
    Traceback (most recent call last):
    argparse.ArgumentTypeError: 'gpu' is no device; give cpu, cuda or cuda:NUMBER
    """
    import torch  # takes seconds, which a command's help does without

    try:
        asked = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f'{text!r} is no device; give cpu, cuda or cuda:NUMBER') from None
    if asked.type == 'cpu':
        return text
    backend = getattr(torch, asked.type, None)
    count = backend.device_count() if hasattr(backend, 'device_count') else 0
    if asked.type == 'mps':
        count = int(torch.backends.mps.is_available())
    if (asked.index or 0) >= count:
        has = f'{count} of kind {asked.type}' if count else f'no device of kind {asked.type}'
        raise argparse.ArgumentTypeError(f'{text!r} is not there, this machine has {has}; leave it out or use cpu')
    return text


def _in_range(
    text: str, convert: Callable[[str], _Number], what: str, lowest: _Number | None, highest: _Number | None
) -> _Number:
    bounds = [('at least', lowest), ('at most', highest)]
    limits = ' and '.join(f'{word} {bound}' for word, bound in bounds if bound is not None)
    accepted = f'{what} of {limits}' if limits else what
    try:
        value = convert(text)
    except ValueError:
        value = math.nan
    # a comparison with NaN is false
    low, high = -math.inf if lowest is None else lowest, math.inf if highest is None else highest
    if not (low <= value <= high and abs(value) < math.inf):
        raise argparse.ArgumentTypeError(f'{text!r} is not accepted; give {accepted}')
    return value
