"""Limits on what may be left out: a number of items, or a fraction of all."""

import math
from typing import Any

from .numbers import is_finite, is_whole


def check_limit(value: Any, name: str, unit: str) -> None:
    """Check that a limit is a whole number from 0, or a fraction below 1.

    Args:
        value: the limit.
        name: the option, for the message.
        unit: what is counted, such as 'boxes', for the message.

    Raises:
        ValueError: it is of another type, negative, NaN, infinite, or has decimals above 1.
    """
    number = is_whole(value) or is_finite(value)
    if not number or not (0 <= value < 1 or value >= 1 and value == int(value)):
        raise ValueError(f'{name}={value!r} must be a number of {unit}, or a fraction from 0 to below 1')


def limit_of(value: int | float, total: int) -> int:
    """Return a limit as a number of items out of ``total``."""
    return math.floor(value * total) if value < 1 else int(value)
