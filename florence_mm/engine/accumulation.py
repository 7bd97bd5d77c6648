"""Gradients that are summed up over iterations, in checkpoints between two updates of the weights."""

import logging
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from florence_mm.errors import UsageError

KEY = 'accumulated_gradients'
_START = '_first_sum'
_LOSS_WARNED = 'Resumed iteration number is not divisible'  # mmengine's, which knows of no gradients in checkpoints


def counts_of(optim_wrapper: Any) -> int:
    """Number of iterations whose gradients are summed up for one update."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def waiting_gradients(optim_wrapper: Any, model: nn.Module) -> tuple[dict[str, Tensor], int, int]:
    """Gradients that wait for an update, by parameter name, how many are summed up, and the iteration of the first sum.

    Every process must call it.

    Processes sum up their own gradients until an update. Here each takes the mean of all, which leaves the update the
    same and is one state that a single file can hold.
    """
    counts, start = counts_of(optim_wrapper), getattr(optim_wrapper, _START, 0)
    if optim_wrapper.should_update():
        return {}, counts, start
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if get_world_size() > 1:
        for name, value in model.named_parameters():
            if value.requires_grad and value.grad is None:  # of another branch of the model on this process
                gradients[name] = value.grad = torch.zeros_like(value)
        for name in sorted(gradients):
            all_reduce(gradients[name], 'mean')
    return {name: gradient.detach().cpu().clone() for name, gradient in gradients.items()}, counts, start


def restore_gradients(checkpoint: dict, runner: Any, model: nn.Module, filename: str) -> None:
    """Put the gradients of a checkpoint back, from which ``runner`` is resumed.

    A run that has ended has no gradients left, wherever its last sum began; the first sum of its continuation is whole.

    Raises:
        UsageError: the checkpoint lies between two updates, and gradients are missing or would be summed up otherwise.
    """
    gradients, before, start = (*checkpoint.get(KEY, ({}, 1)), 0)[:3]
    iteration, counts = checkpoint['meta']['iter'], counts_of(runner.optim_wrapper)
    if before != counts and (gradients or (iteration - start) % counts):
        raise UsageError(
            f'{filename} of iteration {iteration} with optim_wrapper.accumulative_counts={before} cannot go on with '
            f'accumulative_counts={counts}, as the update after it would have too few gradients; resume with '
            f'{before}, or from a checkpoint whose iteration both divide'
        )
    for name, value in model.named_parameters():
        value.grad = gradients[name].to(value.device) if name in gradients else None
    if counts > 1:
        setattr(runner.optim_wrapper, _START, start if gradients or (iteration - start) % counts == 0 else iteration)
        runner.logger.addFilter(_no_loss_warning)


def begin_sums(optim_wrapper: Any) -> None:
    """Count iterations from the first sum of gradients on, once mmengine has set the counts from the first iteration.

    Only a run that goes on after its former end has another first sum.
    """
    start = getattr(optim_wrapper, _START, 0)
    if start:
        optim_wrapper._inner_count -= start
        optim_wrapper._max_counts -= start
        optim_wrapper._remainder_counts = optim_wrapper._max_counts % counts_of(optim_wrapper)


def _no_loss_warning(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOSS_WARNED)
