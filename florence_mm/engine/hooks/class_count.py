"""Check that head and data have the same number of classes."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook

from florence_mm.errors import UsageError
from florence_mm.models.protocol import class_head, unwrap_model
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Check ``num_classes`` of the head against the classes of the data before a run starts.

    The head is a detector's ``bbox_head`` or a recognizer's ``cls_head``. Data without class names, such as some
    :class:`florence_mm.datasets.VideoList`, must not have labels beyond the head's.

    Raises:
        UsageError: training, validation or test data have another number of classes than the head, or such labels.
    """

    def before_train(self, runner: Any) -> None:
        """Check the training data."""
        self._check(runner, runner.train_dataloader.dataset)

    def before_val(self, runner: Any) -> None:
        """Check the validation data."""
        self._check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        """Check the test data."""
        self._check(runner, runner.test_dataloader.dataset)

    @classmethod
    def _check(cls, runner: Any, dataset: Any) -> None:
        head = class_head(unwrap_model(runner.model))
        if head is None or head.num_classes is None:
            return
        for part in _parts(dataset):
            cls._check_part(head, part)

    @staticmethod
    def _check_part(head: Any, dataset: Any) -> None:
        number = head.num_classes
        metainfo = getattr(dataset, 'metainfo', None) or {}
        classes, file = metainfo.get('classes'), getattr(dataset, 'ann_file', None) or 'the data set'
        if classes is not None and number != len(classes):
            raise UsageError(
                f'{file} has {len(classes)} classes, but the head of the {head.owner} {number}; set '
                f'model.{head.name}.num_classes={len(classes)} or choose `classes` of the data set'
            )
        label, line = getattr(dataset, 'largest_label', (0, 0))
        if label >= number:
            raise UsageError(
                f'{file}, line {line}: class {label} is outside 0 to {number - 1}, the classes of the {head.owner}; '
                f'correct the line or set model.{head.name}.num_classes'
            )


def _parts(dataset: Any) -> Iterator[Any]:
    """The data sets inside mmengine's wrappers: ConcatDataset, RepeatDataset, ClassBalancedDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
        return
    for part in inner:
        yield from _parts(part)
