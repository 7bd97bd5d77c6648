"""Test a model in another precision than that of its weights."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.hooks import Hook

from florence_mm.models.precision import check_precision, set_precision
from florence_mm.models.protocol import unwrap_model


class PrecisionHook(Hook):
    """Set the precision of a model before it is tested, once its weights are loaded.

    Args:
        precision (str): See :func:`~florence_mm.models.precision.set_precision`.

    Raises:
        UsageError: there is no such precision, or this machine has none.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, precision: str) -> None:
        self.precision = precision
        check_precision(precision, torch.device(get_device()))

    def before_test(self, runner: Any) -> None:
        """Convert the encoders."""
        set_precision(unwrap_model(runner.model).eval(), self.precision, torch.device(get_device()))
