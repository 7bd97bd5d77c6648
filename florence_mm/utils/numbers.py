"""Which values are numbers, where nobody has checked their type: values of files, configs and arguments."""

import sys
from typing import Any

import numpy as np

_PLAIN = (float, int)
_NUMBERS = (int, float, np.integer, np.floating)
_LARGEST = sys.float_info.max  # a whole number of Python or JSON may be larger


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or numpy, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number, of Python or numpy, that a float can hold: not NaN, infinite or a truth value.

    >>> [is_finite(value) for value in (0.5, 2, '2', True, float('nan'), 10**400)]
    [True, True, False, False, False, False]
    """
    # files have millions of plain numbers
    if type(value) not in _PLAIN and (isinstance(value, bool) or not isinstance(value, _NUMBERS)):
        return False
    return -_LARGEST <= value <= _LARGEST  # a comparison with NaN is false


def readable(number: float | None) -> str:
    """Format a number with a unit; '-' for None.

    >>> readable(28288354), readable(999), readable(None)
    ('28.29 M', '999', '-')
    """
    if number is None:
        return '-'
    for size, unit in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(number) >= size:
            return f'{number / size:.2f} {unit}'
    return f'{number:.0f}'
