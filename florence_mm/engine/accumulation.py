"""Gradients that are summed up over iterations, in checkpoints between two updates of the weights."""

import logging
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from florence_mm.errors import UsageError

KEY = 'accumulated_gradients'
_LOSS_WARNED = 'Resumed iteration number is not divisible'  # mmengine's, which knows of no gradients in checkpoints


def counts_of(optim_wrapper: Any) -> int:
    """Number of iterations whose gradients are summed up for one update."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def waiting_gradients(optim_wrapper: Any, model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Gradients that wait for an update, by parameter name, and how many are summed up; every process must call it.

    Processes sum up their own gradients until an update. Here each takes the mean of all, which leaves the update the
    same and is one state that a single file can hold.
    """
    counts = counts_of(optim_wrapper)
    if optim_wrapper.should_update():
        return {}, counts
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if get_world_size() > 1:
        for name, value in model.named_parameters():
            if value.requires_grad and value.grad is None:  # of another branch of the model on this process
                gradients[name] = value.grad = torch.zeros_like(value)
        for name in sorted(gradients):
            all_reduce(gradients[name], 'mean')
    return {name: gradient.detach().cpu().clone() for name, gradient in gradients.items()}, counts


def restore_gradients(checkpoint: dict, runner: Any, model: nn.Module, filename: str) -> None:
    """Put the gradients of a checkpoint back, from which ``runner`` is resumed.

    Raises:
        UsageError: the checkpoint lies between two updates, and gradients are missing or would be summed up otherwise.
    """
    gradients, before = checkpoint.get(KEY, ({}, 1))
    iteration, counts = checkpoint['meta']['iter'], counts_of(runner.optim_wrapper)
    if before != counts and (gradients or iteration % counts):
        raise UsageError(
            f'{filename} of iteration {iteration} with optim_wrapper.accumulative_counts={before} cannot go on with '
            f'accumulative_counts={counts}, as the update after it would have too few gradients; resume with '
            f'{before}, or from a checkpoint whose iteration both divide'
        )
    for name, value in model.named_parameters():
        value.grad = gradients[name].to(value.device) if name in gradients else None
    if gradients:
        runner.logger.addFilter(_no_loss_warning)


def _no_loss_warning(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOSS_WARNED)
