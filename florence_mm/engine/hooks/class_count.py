"""A detector whose head and whose data have different numbers of classes is stopped before it learns nonsense."""

from typing import Any

from mmengine.hooks import Hook

from florence_mm.engine.errors import UsageError
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Compare ``bbox_head.num_classes`` with the classes of the data, which may be read from a file.

    Raises:
        UsageError: training, validation or test data have another number of classes than the head.
    """

    def before_train(self, runner: Any) -> None:
        """Classes of the training data."""
        self._check(runner, runner.train_dataloader.dataset)

    def before_val(self, runner: Any) -> None:
        """Classes of the validation data."""
        self._check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        """Classes of the test data."""
        self._check(runner, runner.test_dataloader.dataset)

    @staticmethod
    def _check(runner: Any, dataset: Any) -> None:
        model = runner.model
        # inside a distributed or a test-time-augmentation wrapper
        while not hasattr(model, 'bbox_head') and hasattr(model, 'module'):
            model = model.module
        number = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        metainfo = getattr(dataset, 'metainfo', None) or {}
        classes = metainfo.get('classes')
        if number is not None and classes is not None and number != len(classes):
            raise UsageError(
                f'{metainfo.get("ann_file", "the data set")} has {len(classes)} classes, but the head of the detector '
                f'{number}; set model.bbox_head.num_classes={len(classes)} or choose `classes` of the data set'
            )
