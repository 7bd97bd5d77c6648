"""Sigmoid focal loss (arXiv 1708.02002, equation 5) with class indices as targets, and its closed-form gradient.

Shapes: ``N`` samples, ``C`` classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# the compiled operator clamps probabilities at this value, so its logarithms end here
_LOG_TINY = math.log(torch.finfo(torch.float32).tiny)


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Compute the sigmoid focal loss of every sample and class, unreduced.

    Args:
        input: ``(N, C)`` logits.
        target: ``(N,)`` class indices; ``C`` (or any number outside 0 to C - 1) is background.
        weight: ``(C,)`` factor for the samples of each class, or None; 1 for background.
        gamma: exponent of the modulating factor, which lowers the loss of well classified samples.
        alpha: weight of positives; negatives have ``1 - alpha``.

    Returns:
        Tensor: ``(N, C)``.

    Raises:
        ValueError: shapes do not fit together.
    """
    positive, factor = _targets(input, target, weight)
    p = input.sigmoid()
    log_p, log_not_p = (F.logsigmoid(x).clamp(min=_LOG_TINY) for x in (input, -input))
    loss = torch.where(positive, -alpha * (1 - p) ** gamma * log_p, -(1 - alpha) * p**gamma * log_not_p)
    return loss * factor


def sigmoid_focal_loss_gradient(
    input: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Compute the derivative of each entry of :func:`sigmoid_focal_loss` by its logit, ``(N, C)``."""
    positive, factor = _targets(input, target, weight)
    p, not_p = input.sigmoid(), (-input).sigmoid()
    log_p, log_not_p = (F.logsigmoid(x).clamp(min=_LOG_TINY) for x in (input, -input))
    if_positive = -alpha * not_p**gamma * (not_p - gamma * p * log_p)
    if_negative = -(1 - alpha) * p**gamma * (gamma * not_p * log_not_p - p)
    return torch.where(positive, if_positive, if_negative) * factor


def _targets(input: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which entries are positive ``(N, C)``, and the factor of each sample ``(N, 1)``."""
    if input.dim() != 2 or target.shape != input.shape[:1]:
        raise ValueError(
            f'input has shape {tuple(input.shape)} and target {tuple(target.shape)}, expected (N, C) and (N,)'
        )
    classes = input.shape[1]
    positive = target[:, None] == torch.arange(classes, device=target.device)
    factor = input.new_ones(len(input), 1)
    if weight is not None:
        if tuple(weight.shape) != (classes,):
            raise ValueError(f'weight has shape {tuple(weight.shape)}, expected {(classes,)}: one number a class')
        known = (target >= 0) & (target < classes)
        factor = torch.where(known, weight.to(input)[target.clamp(0, classes - 1)], 1)[:, None]
    return positive, factor
