"""Check of single values: type by annotation, range by name, and the sentence for what is not accepted."""

import inspect
import numbers
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from florence_mm.errors import shown

from .ranges import EVERYWHERE, outside, range_of
from .values import UNIONS, accepted, fits, is_nan

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
    if is_default(value, parameter):
        return None
    if not exact:
        annotation = parameter.annotation
        return None if _fits_elsewhere(value, annotation) else _problem(path, value, owner, accepted(annotation))
    annotation = _annotation(parameter)
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


def elsewhere_problem(path: str, value: Any, argument: str) -> str | None:
    """One sentence if a number is outside the range that an argument has in all packages, else None."""
    range_ = EVERYWHERE.get(argument)
    return _problem(path, value, argument, str(range_)) if range_ is not None and outside(value, range_) else None


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


def leaf_problem(path: str, value: Any, kept: bool = True) -> str | None:
    """One sentence for what no setting of any package takes, else None: NaN, sets, bytes, functions without a name.

    Args:
        path (str): Dotted position of the value.
        value (Any): The value.
        kept (bool): Whether the config is that of a run, which writes it to a file.
    """
    if is_nan(value):
        return f'{path}: nan is no value of a setting; give a number'
    if isinstance(value, (set, frozenset)):
        return f'{path}: a set has no order; give a list instead of {shown(value)}'
    if isinstance(value, (bytes, bytearray, complex)):
        return f'{path}: {shown(value)} is no value of a setting; give a text, a number, a list or a dict'
    if kept and inspect.isfunction(value) and not value.__qualname__.isidentifier():
        return f'{path}: a function without a name cannot be kept with the config; give the name of a registered one'
    return None


def is_default(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether a value is the default of an argument, which may be no value of its annotation."""
    default = parameter.default
    return default is not parameter.empty and type(value) is type(default) and bool(value == default)


def _problem(path: str, value: Any, owner: str, what: str) -> str:
    return f'{path}: {owner} takes {what} here, not {shown(value)}'


def _annotation(parameter: inspect.Parameter) -> Any:
    """The annotation of an argument; where there is none, the kind of a default that is a number."""
    default = parameter.default
    if parameter.annotation is parameter.empty and type(default) in _NUMBERS:
        return (bool if isinstance(default, bool) else float) | None
    return parameter.annotation


def _fits_elsewhere(value: Any, annotation: Any) -> bool:
    """Whether an argument of another package may take a value: their annotations are wrong for lists and dicts."""
    kinds = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    return not isinstance(value, str) or not all(kind in (*_NUMBERS, types.NoneType) for kind in kinds)
