"""Set the classes of a zero-shot model to those of the evaluation data."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook

from florence_mm.language.prompts import get_templates
from florence_mm.models.protocol import ZeroShotModel, unwrap_model
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Call ``set_classes`` of a zero-shot model with the class names of the data before validation and test.

    Args:
        templates (str or Sequence[str]): Prompt templates: ``'imagenet'``, ``'simple'``, ``'none'`` or strings with one
            ``{}`` each. Defaults to 'imagenet'.
    """

    # before EMAHook and others that change weights at the beginning of an evaluation
    priority = 'ABOVE_NORMAL'

    def __init__(self, templates: str | Sequence[str] = 'imagenet') -> None:
        self.templates = templates

    def before_val(self, runner: Any) -> None:
        """Set the classes of the validation data."""
        self._set(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        """Set the classes of the test data."""
        self._set(runner, runner.test_dataloader.dataset)

    def _set(self, runner: Any, dataset: Any) -> None:
        model = unwrap_model(runner.model)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if classes and isinstance(model, ZeroShotModel):
            model.set_classes(list(classes), get_templates(self.templates))
