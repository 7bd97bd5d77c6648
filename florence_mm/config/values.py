"""Values of a config compared with the annotations of the arguments that they are for.

An annotation says less than a constructor takes where it names a class: a config gives a dict with ``type``. An
annotation that is not understood accepts everything.
"""

import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch

#: What ``get_origin`` gives for ``a | b``.
UNIONS = (Union, types.UnionType)
_LISTS = (list, tuple, set, frozenset)
_SCALARS = (str, bytes, bool, numbers.Number, np.generic)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of a config is what an annotation says.

    Lists and tuples stand for each other, whole numbers for floats, paths for texts, and dicts for objects that are
    built from them. NaN is no number.

    >>> fits([1, 2], tuple[int, ...]), fits([1, 2.5], tuple[int, ...]), fits(3, float), fits('3', float | None)
    (True, False, True, False)
    >>> fits(dict(type='ReLU'), torch.nn.Module), fits(3, torch.nn.Module)
    (True, False)
    """
    origin = get_origin(annotation)
    kind = annotation if origin is None else origin
    if kind in UNIONS:
        return any(fits(value, part) for part in get_args(annotation))
    if kind is Literal:
        return value in get_args(annotation)
    if kind is typing.Annotated:
        return fits(value, get_args(annotation)[0])
    if kind is None or kind is types.NoneType:
        return value is None
    if not inspect.isclass(kind) or kind in (Any, object, inspect.Parameter.empty):
        return True
    if kind is type:
        return inspect.isclass(value)
    if kind in (bool, int, float):
        return _fits_number(value, kind)
    if issubclass(kind, (str, PurePath)):
        return isinstance(value, (str, PurePath))
    if kind is Callable:
        return callable(value) or isinstance(value, (Mapping, str))
    if issubclass(kind, Mapping):
        return _fits_mapping(value, get_args(annotation))
    if isinstance(value, (set, frozenset)) and kind in (set, frozenset, Iterable, Collection):
        return all(fits(item, part) for item in value for part in get_args(annotation)[:1])
    if issubclass(kind, (*_LISTS, np.ndarray)) or kind in (Sequence, Iterable, Collection):
        return _fits_list(value, get_args(annotation), fixed=kind is tuple)
    if issubclass(kind, torch.Tensor):
        return isinstance(value, torch.Tensor)
    return is_object(value)


def is_object(value: Any) -> bool:
    """Whether a value is an object that a config may hold: built, or as a dict from which it is built."""
    if isinstance(value, (*_SCALARS, *_LISTS, np.ndarray, types.NoneType)):
        return False
    return isinstance(value, Mapping) or not (inspect.isroutine(value) or inspect.isclass(value))


def accepted(annotation: Any) -> str:
    """Say what an annotation accepts.

    >>> accepted(int | None), accepted(list[float]), accepted(tuple[int, int] | bool)
    ('a whole number or None', 'a list of numbers', 'a list of 2 whole numbers, True or False')
    """
    origin = get_origin(annotation)
    kind = annotation if origin is None else origin
    arguments = get_args(annotation)
    if kind in UNIONS:
        words = list(dict.fromkeys(accepted(part) for part in arguments if part is not types.NoneType))
        words += ['None'] if types.NoneType in arguments else []
        return (
            f'{", ".join(words[:-1])} or {words[-1]}'
            if len(words) > 1 and ' or ' not in words[-1]
            else ', '.join(words)
        )
    if kind is Literal:
        return ' or '.join(map(repr, arguments))
    if kind is None or kind is types.NoneType:
        return 'None'
    if kind in _WORDS:
        return _WORDS[kind]
    if inspect.isclass(kind) and issubclass(kind, PurePath):
        return 'a path'
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return 'a dict'
    if kind in (*_LISTS, Sequence, Iterable, Collection):
        count = len(arguments) if kind is tuple and Ellipsis not in arguments and arguments else None
        item = f' of {count or ""} {_plural(arguments[0])}'.replace('  ', ' ') if arguments else ''
        return f'a list{item}'
    return f'a dict with the type of a {getattr(kind, "__name__", kind)}'


def is_nan(value: Any) -> bool:
    """Whether a value is the float NaN."""
    return isinstance(value, float) and math.isnan(value)


_WORDS = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: 'a text',
    Callable: 'a function or a dict',
}


def _plural(annotation: Any) -> str:
    words = accepted(annotation)
    if annotation in (int, float, str):
        return words.removeprefix('a ') + 's'
    return f'values that are {words}'


def _fits_number(value: Any, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if isinstance(value, (bool, np.bool_)) or is_nan(value):
        return False
    return isinstance(value, numbers.Integral if kind is int else numbers.Real)


def _fits_mapping(value: Any, arguments: tuple) -> bool:
    if not isinstance(value, Mapping):
        return False
    return len(arguments) != 2 or 'type' in value or all(fits(item, arguments[1]) for item in value.values())


def _fits_list(value: Any, arguments: tuple, fixed: bool) -> bool:
    # a set has no order, which may even change from run to run
    if isinstance(value, (str, bytes, Mapping, set, frozenset)) or not isinstance(value, Iterable):
        return False
    if not arguments or not isinstance(value, Sequence):
        return True
    if fixed and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return all(fits(item, arguments[0]) for item in value)
