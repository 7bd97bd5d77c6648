"""Stop a training that has diverged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from florence_mm.errors import UsageError
from florence_mm.registry import HOOKS


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop the run after several consecutive iterations with a loss that is NaN or infinite.

    On a GPU the values of an iteration are copied while the next one is computed, and looked at then, so that the
    device never waits for work. Before a validation, at the end of an epoch and before a checkpoint is written, none is
    left unseen.

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
        self._waiting: _Values | None = None

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Check all logged values of the iteration; on a GPU those of the one before."""
        values = _Values.of(runner.iter + 1, outputs or {})
        self._check_waiting()
        self._waiting = values
        if values.copied is None:
            self._check_waiting()

    def after_train_epoch(self, runner: Any) -> None:
        """Check the last iteration of the epoch; a checkpoint may follow."""
        self._check_waiting()

    def before_val(self, runner: Any) -> None:
        """Check the last iteration before a validation."""
        self._check_waiting()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Check the last iteration before a checkpoint is written."""
        self._check_waiting()

    def _check_waiting(self) -> None:
        values, self._waiting = self._waiting, None
        if values is None:
            return
        bad = values.not_finite()
        if not bad:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= self.patience:
            raise UsageError(
                f'{", ".join(bad)} was not finite in {self._in_a_row} iterations in a row, the last of them iteration '
                f'{values.iteration}; lower the learning rate, clip gradients (optim_wrapper.clip_grad) or train '
                'without float16, and go on from the last checkpoint with --resume'
            )


@dataclass
class _Values:
    """Logged values of one iteration, of which those of a GPU are being copied.

    Attributes:
        iteration: number of the iteration, from 1.
        numbers: values by name, without those of ``away``; a logged None is none.
        away: names of the values of a GPU.
        means: ``(V,)`` on the host, their means; not written before ``copied``.
        copied: event after the copy; None: there is none.
    """

    iteration: int
    numbers: dict[str, float]
    away: Sequence[str] = ()
    means: Tensor | None = None
    copied: Any = None

    @classmethod
    def of(cls, iteration: int, outputs: dict[str, Any]) -> '_Values':
        numbers: dict[str, float] = {}
        away: dict[str, Tensor] = {}
        for name, value in outputs.items():
            if isinstance(value, Tensor):
                # a logged value may require a gradient
                mean = value.detach().float().mean()
                if mean.device.type == 'cuda':
                    away[name] = mean
                else:
                    numbers[name] = mean.item()
            elif value is not None:
                numbers[name] = value
        if not away:
            return cls(iteration, numbers)
        # the host's memory is pinned, and nothing waits
        device = next(iter(away.values())).device
        means = torch.stack([mean.to(device, non_blocking=True) for mean in away.values()])
        means = means.to('cpu', non_blocking=True)
        copied = torch.Event(device)
        copied.record()
        return cls(iteration, numbers, tuple(away), means, copied)

    def not_finite(self) -> list[str]:
        """Names of the values that are not finite; waits for the copy."""
        numbers = dict(self.numbers)
        if self.copied is not None:
            self.copied.synchronize()
            numbers.update(zip(self.away, self.means.tolist(), strict=True))
        return [name for name, number in numbers.items() if not math.isfinite(number)]
