"""Arguments that all data sets take, checked and completed in one place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from florence_mm.registry import TRANSFORMS


def image_prefix(data_prefix: str | Mapping, key: str) -> dict:
    """``data_prefix`` as mmengine wants it, a dict with the one key ``key``.

    Raises:
        ValueError: a dict with other keys.
    """
    if isinstance(data_prefix, str):
        return {key: data_prefix}
    if set(data_prefix) != {key}:
        raise ValueError(f"data_prefix={data_prefix!r} must be a string or dict({key}='...')")
    return dict(data_prefix)


def classes_given_once(classes: Any, metainfo: Mapping | None) -> tuple[Any, dict]:
    """The classes, which may stand in ``metainfo`` too, and ``metainfo`` without them.

    Raises:
        ValueError: both name classes.
    """
    rest = dict(metainfo or {})
    if 'classes' not in rest:
        return classes, rest
    if classes is not None:
        raise ValueError("give the class names once, as `classes` or in metainfo['classes']")
    return rest.pop('classes'), rest


def check_skip_bad(skip_bad: Mapping | None, unit: str) -> None:
    """Refuse a ``skip_bad`` that is not ``dict(max=...)``.

    Raises:
        ValueError: it has other keys; the sentence says that ``max`` counts ``unit``.
    """
    if skip_bad is not None and set(skip_bad) != {'max'}:
        raise ValueError(f'skip_bad={skip_bad!r} must be dict(max=...), a number of {unit} or a fraction below 1')


def build_transforms(pipeline: Sequence[dict | Callable]) -> list[Callable]:
    """Transforms built here: the registry that mmengine takes would know ours in our scope alone."""
    return [TRANSFORMS.build(step) if isinstance(step, Mapping) else step for step in pipeline]
