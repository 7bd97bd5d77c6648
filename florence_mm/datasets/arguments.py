"""Checks and defaults of arguments that all data sets share."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from florence_mm.errors import shown
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_whole


def require(name: str, value: Any, right: bool, expected: str) -> None:
    """Check a condition on an argument.

    Args:
        name: the argument.
        value: its value.
        right: the condition.
        expected: what the value must be, for the message.

    Raises:
        ValueError: the condition does not hold.
    """
    if not right:
        raise ValueError(f'{name}={shown(value)} must be {expected}')


def require_flags(**flags: Any) -> None:
    """Check that arguments are True or False: a text such as 'False' would count as true.

    Raises:
        ValueError: one is not.
    """
    for name, value in flags.items():
        require(name, value, isinstance(value, bool), 'True or False')


def require_paths(**paths: Any) -> None:
    """Check that arguments are paths of files or folders.

    Raises:
        ValueError: one is not.
    """
    for name, value in paths.items():
        require(name, value, isinstance(value, (str, os.PathLike)) and '\0' not in os.fspath(value), 'a path')


def require_backend(backend_args: Any) -> None:
    """Check that ``backend_args`` can describe a file backend of mmengine.

    Raises:
        ValueError: it is neither None nor a dict.
    """
    right = backend_args is None or isinstance(backend_args, Mapping)
    require('backend_args', backend_args, right, "None or a dict such as dict(backend='local')")


def check_shared_arguments(
    ann_file: Any, data_root: Any, pipeline: Any, test_mode: Any, indices: Any, lazy_init: Any
) -> None:
    """Check the types of the arguments that :class:`mmengine.dataset.BaseDataset` takes and does not check.

    Raises:
        ValueError: an argument is of another type; ``indices`` are checked against the rows by :func:`check_indices`.
    """
    require_paths(ann_file=ann_file, data_root=data_root)
    require_flags(test_mode=test_mode, lazy_init=lazy_init)
    steps = isinstance(pipeline, Sequence) and not isinstance(pipeline, str)
    require('pipeline', pipeline, steps, 'a list of transforms, [] for none')
    for number, step in enumerate(pipeline):
        right = callable(step) or isinstance(step, Mapping) and 'type' in step
        require(f'pipeline[{number}]', step, right, 'a dict with the type of a transform, or a transform')
    several = isinstance(indices, Sequence) and all(map(is_whole, indices))
    right = indices is None or is_whole(indices) or several
    require('indices', indices, right, 'a number of samples or a list of whole numbers')


def check_indices(indices: int | Sequence[int] | None, number: int, location: str) -> None:
    """Check that ``indices`` take samples out of ``number``, and only such that exist.

    Raises:
        ValueError: they take none, or one does not exist; the message names the data set by ``location``.
    """
    if indices is None:
        return
    if not isinstance(indices, Sequence):
        require('indices', indices, indices != 0, f'another number than 0, which takes no sample of {location}')
        return
    require('indices', indices, len(indices) > 0, f'some indices; none takes no sample of {location}')
    for index in indices:
        require('indices', index, -number <= index < number, f'below the {number} samples of {location}')


def image_prefix(data_prefix: str | Mapping, key: str) -> dict:
    """Convert ``data_prefix`` to mmengine's form, a dict with the one key ``key``.

    Raises:
        ValueError: a dict with other keys, or no path.
    """
    if isinstance(data_prefix, Mapping) and set(data_prefix) == {key}:
        data_prefix = data_prefix[key]
    require('data_prefix', data_prefix, isinstance(data_prefix, (str, os.PathLike)), f"a string or dict({key}='...')")
    require_paths(data_prefix=data_prefix)
    return {key: os.fspath(data_prefix)}


def classes_given_once(classes: Any, metainfo: Mapping | None) -> tuple[Any, dict]:
    """Take the classes from ``classes`` or ``metainfo``; return them and ``metainfo`` without them.

    Raises:
        ValueError: both give classes, ``metainfo`` is no dict, or it has ``CLASSES``, which OpenMMLab had before.
    """
    require('metainfo', metainfo, metainfo is None or isinstance(metainfo, (Mapping, Config)), 'a dict')
    rest = dict(metainfo or {})
    if 'CLASSES' in rest:
        raise ValueError("metainfo has 'CLASSES', which is not read; name it 'classes'")
    if 'classes' not in rest:
        return classes, rest
    if classes is not None:
        raise ValueError("give the class names once, as `classes` or in metainfo['classes']")
    return rest.pop('classes'), rest


def check_skip_bad(skip_bad: Mapping | None, unit: str) -> None:
    """Check that ``skip_bad`` is None or ``dict(max=...)``.

    Raises:
        ValueError: it is not; the message says that ``max`` counts ``unit``.
    """
    if skip_bad is not None and not (isinstance(skip_bad, Mapping) and set(skip_bad) == {'max'}):
        raise ValueError(f'skip_bad={shown(skip_bad)} must be dict(max=...), a number of {unit} or a fraction below 1')


def build_transforms(pipeline: Sequence[dict | Callable]) -> list[Callable]:
    """Build transforms from our registry; mmengine's would find ours only under our default scope."""
    return [TRANSFORMS.build(step) if isinstance(step, Mapping) else step for step in pipeline]
