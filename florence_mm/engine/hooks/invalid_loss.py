"""Stop a training that has diverged."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook

from florence_mm.errors import UsageError
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop the run after several consecutive iterations with a loss that is NaN or infinite.

    Args:
        patience (int): Number of consecutive iterations; float16 loss scaling may give single ones. Defaults to 3.

    Raises:
        ValueError: ``patience`` is below 1.
        UsageError: the loss was not finite ``patience`` times in a row; no checkpoint of that iteration is written.
    """

    # directly after the loss is logged, before a checkpoint could be written
    priority = 'HIGH'

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f'InvalidLossHook.patience must be at least 1, got {patience}')
        self.patience = patience
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Check all logged values of the iteration."""
        bad = [name for name, value in (outputs or {}).items() if not _is_finite(value)]
        if not bad:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= self.patience:
            raise UsageError(
                f'{", ".join(bad)} was not finite in {self._in_a_row} iterations in a row, the last of them iteration '
                f'{runner.iter + 1}; lower the learning rate, clip gradients (optim_wrapper.clip_grad) or train '
                'without float16, and go on from the last checkpoint with --resume'
            )


def _is_finite(value: Any) -> bool:
    # a logged value may be a tensor that requires a gradient
    return math.isfinite(value.detach().float().mean().item() if isinstance(value, torch.Tensor) else value)
