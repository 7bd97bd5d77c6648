"""Checks that the classes of data are those of the head, in number and order."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.runner import BaseLoop
from torch import nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import class_head, unwrap_model


def check_classes(model: nn.Module, dataset: Any) -> None:
    """Check ``num_classes`` of a head against the classes of data.

    The head is a detector's ``bbox_head`` or a recognizer's ``cls_head``. Data without class names, such as some
    :class:`florence_mm.datasets.VideoList`, must not have labels beyond the head's. Each set of a concatenation is
    checked.

    Raises:
        UsageError: the data have another number of classes than the head, or such labels.
    """
    head = class_head(unwrap_model(model))
    if head is None or head.num_classes is None:
        return
    for part in data_parts(dataset):
        classes, file = _classes(getattr(part, 'metainfo', None)), _file(part)
        if classes is not None and head.num_classes != len(classes):
            raise UsageError(
                f'{file} has {len(classes)} classes, but the head of the {head.owner} {head.num_classes}; set '
                f'model.{head.name}.num_classes={len(classes)} or choose `classes` of the data set'
            )
        label, line = getattr(part, 'largest_label', (0, 0))
        if label >= head.num_classes:
            raise UsageError(
                f'{file}, line {line}: class {label} is outside 0 to {head.num_classes - 1}, the classes of the '
                f'{head.owner}; correct the line or set model.{head.name}.num_classes'
            )


def check_class_order(runner: Any, checkpoint: Mapping, filename: str) -> None:
    """Check the order of the classes that a checkpoint's head was trained with against the data it is used for.

    These are the test or validation data, or when resuming the training data; a new run from the weights trains its
    head for its own classes.

    Args:
        runner: the runner, with its loops built.
        checkpoint: the checkpoint, with the classes of its training data in ``meta``.
        filename: its file, for the message.

    Raises:
        UsageError: the data have a class of the checkpoint under another index.
    """
    trained = _classes(checkpoint.get('meta', {}).get('dataset_meta'))
    loops = [runner._train_loop] if isinstance(runner._train_loop, BaseLoop) else [runner._val_loop, runner._test_loop]
    if trained is None or class_head(unwrap_model(runner.model)) is None:
        return
    if loops[0] is runner._train_loop and not runner._resume:
        return
    for part in (part for loop in loops if isinstance(loop, BaseLoop) for part in data_parts(loop.dataloader.dataset)):
        _check_order(part, trained, f'{filename} was trained with it')


def check_same_order(model: nn.Module, datasets: Mapping[str, Any]) -> None:
    """Check that the data that train a head and those that score it have each class under one index.

    Args:
        model: the model; without a head of fixed classes nothing is checked.
        datasets: the data sets by the loader's key in the config, those of the training first.

    Raises:
        UsageError: a data set has a class of the first one under another index.
    """
    if class_head(unwrap_model(model)) is None:
        return
    first: tuple[tuple[str, ...], str] | None = None
    for key, part in ((key, part) for key, dataset in datasets.items() for part in data_parts(dataset)):
        classes = _classes(getattr(part, 'metainfo', None))
        if first is not None:
            _check_order(part, *first, place=f'{key}.dataset: ')
        elif classes is not None:
            first = classes, f'{key} has it'


def data_parts(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside mmengine's wrappers: ConcatDataset, RepeatDataset, ClassBalancedDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
        return
    for part in inner:
        yield from data_parts(part)


def _check_order(dataset: Any, classes: tuple[str, ...], source: str, place: str = '') -> None:
    index_of = {name: index for index, name in enumerate(classes)}
    for index, name in enumerate(_classes(getattr(dataset, 'metainfo', None)) or ()):
        if index_of.get(name, index) != index:
            raise UsageError(
                f'{place}{_file(dataset)} has the class {name!r} under index {index}, but {source} under index '
                f'{index_of[name]}; give the data set the classes in that order: {list(classes)[:20]}'
            )


def _classes(metainfo: Any) -> tuple[str, ...] | None:
    if not isinstance(metainfo, Mapping):
        return None
    classes = metainfo.get('classes', metainfo.get('CLASSES'))  # the latter in files of older packages
    return tuple(classes) if isinstance(classes, (list, tuple)) else None


def _file(dataset: Any) -> str:
    return getattr(dataset, 'ann_file', None) or 'the data set'
