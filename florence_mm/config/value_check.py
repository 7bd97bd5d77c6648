"""Check of single values: type by annotation, range by name, and the sentence for what is not accepted."""

import inspect
import numbers
from collections.abc import Mapping
from typing import Any

from florence_mm.errors import shown

from .ranges import outside, range_of
from .values import accepted, fits, is_nan

#: Packages whose annotations say what their constructors take; in others only texts for numbers are an error.
_EXACT = ('florence_mm', 'mmengine', 'torch')
_NUMBERS = (int, float, bool)
#: Values of arguments whose annotation only says that they are texts.
_CHOICES = {('CheckpointHook', 'rule'): ('greater', 'less'), ('AtomicCheckpointHook', 'rule'): ('greater', 'less')}
#: Numbers in the test_cfg of mmdet's detectors, which their heads read without a check.
_TEST_NUMBERS = ('score_thr', 'max_per_img', 'nms_pre', 'min_bbox_size', 'iou_threshold')


def is_exact(owner: Any) -> bool:
    """Whether a class or function is of a package whose annotations can be relied on."""
    return (getattr(owner, '__module__', None) or '').split('.')[0] in _EXACT


def value_problem(path: str, value: Any, parameter: inspect.Parameter, owner: str, exact: bool) -> str | None:
    """One sentence if an argument does not take a value, else None.

    Args:
        path (str): Dotted position of the value.
        value (Any): The value.
        parameter (inspect.Parameter): The argument.
        owner (str): Name of the class or section, for the message and the ranges.
        exact (bool): Whether annotations and ranges hold (:func:`is_exact`).
    """
    annotation = parameter.annotation
    if is_default(value, parameter):
        return None
    if not exact:
        wrong = isinstance(value, str) and annotation in (*_NUMBERS, *(kind | None for kind in _NUMBERS))
        return _problem(path, value, owner, accepted(annotation)) if wrong else None
    if not fits(value, annotation):
        return _problem(path, value, owner, accepted(annotation))
    choices = _CHOICES.get((owner, parameter.name))
    if choices and any(one not in choices for one in (value if isinstance(value, (list, tuple)) else [value])):
        return _problem(path, value, owner, ' or '.join(map(repr, choices)))
    return range_problem(path, value, parameter.name, owner)


def range_problem(path: str, value: Any, argument: str, owner: str) -> str | None:
    """One sentence if a number, or one in a list, is outside the range of the argument, else None."""
    range_ = range_of(owner, argument)
    if range_ is None or not outside(value, range_):
        return None
    return _problem(path, value, owner, str(range_))


def inner_problem(path: str, value: Any, argument: str, owner: str) -> str | None:
    """The same for a value in a dict without type, where the name of the argument is all that is known."""
    if range_of(owner, argument) is None or value is None or isinstance(value, (Mapping, numbers.Number)):
        return range_problem(path, value, argument, owner)
    if not isinstance(value, (list, tuple)):
        return _problem(path, value, owner, 'a number or a list of numbers')
    return range_problem(path, value, argument, owner)


def text_problem(path: str, value: Any, argument: str, owner: str) -> str | None:
    """One sentence for a text in place of a number in a dict without type of another package, else None."""
    wrong = argument in _TEST_NUMBERS and isinstance(value, str)
    return _problem(path, value, owner, 'a number') if wrong else None


def nan_problem(path: str, value: Any) -> str | None:
    """One sentence for NaN, which no setting takes, else None."""
    return f'{path}: nan is no value of a setting; give a number' if is_nan(value) else None


def is_default(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether a value is the default of an argument, which may be no value of its annotation."""
    default = parameter.default
    return default is not parameter.empty and type(value) is type(default) and bool(value == default)


def _problem(path: str, value: Any, owner: str, what: str) -> str:
    return f'{path}: {owner} takes {what} here, not {shown(value)}'
