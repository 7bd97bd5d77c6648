"""Check that head and data have the same number of classes."""

from typing import Any

from mmengine.hooks import Hook

from florence_mm.engine.guards import check_classes
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Check ``num_classes`` of the head against the classes of the data.

    See :func:`~florence_mm.engine.guards.check_classes`. :class:`~florence_mm.engine.FlorenceRunner` checks it without
    this hook, before the first iteration; the hook is for mmengine's own ``Runner``.

    Raises:
        UsageError: training, validation or test data have another number of classes than the head.
    """

    def before_train(self, runner: Any) -> None:
        """Check the training data."""
        check_classes(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner: Any) -> None:
        """Check the validation data."""
        check_classes(runner.model, runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        """Check the test data."""
        check_classes(runner.model, runner.test_dataloader.dataset)
