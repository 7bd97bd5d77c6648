"""Checks and defaults of arguments that all data sets share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from florence_mm.registry import TRANSFORMS


def image_prefix(data_prefix: str | Mapping, key: str) -> dict:
    """Convert ``data_prefix`` to mmengine's form, a dict with the one key ``key``.

    Raises:
        ValueError: a dict with other keys.
    """
    if isinstance(data_prefix, str):
        return {key: data_prefix}
    if set(data_prefix) != {key}:
        raise ValueError(f"data_prefix={data_prefix!r} must be a string or dict({key}='...')")
    return dict(data_prefix)


def classes_given_once(classes: Any, metainfo: Mapping | None) -> tuple[Any, dict]:
    """Take the classes from ``classes`` or ``metainfo``; return them and ``metainfo`` without them.

    Raises:
        ValueError: both give classes.
    """
    rest = dict(metainfo or {})
    if 'classes' not in rest:
        return classes, rest
    if classes is not None:
        raise ValueError("give the class names once, as `classes` or in metainfo['classes']")
    return rest.pop('classes'), rest


def check_skip_bad(skip_bad: Mapping | None, unit: str) -> None:
    """Check that ``skip_bad`` is None or ``dict(max=...)``.

    Raises:
        ValueError: it has other keys; the message says that ``max`` counts ``unit``.
    """
    if skip_bad is not None and (not isinstance(skip_bad, Mapping) or set(skip_bad) != {'max'}):
        raise ValueError(f'skip_bad={skip_bad!r} must be dict(max=...), a number of {unit} or a fraction below 1')


def build_transforms(pipeline: Sequence[dict | Callable]) -> list[Callable]:
    """Build transforms from our registry; mmengine's would find ours only under our default scope."""
    return [TRANSFORMS.build(step) if isinstance(step, Mapping) else step for step in pipeline]
