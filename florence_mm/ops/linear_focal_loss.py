"""Sigmoid focal loss (arXiv 1708.02002, equation 5) fused with its linear classifier: logits are never all in memory.

A detector with 25,190 classes has 22 thousand anchors on an 800x1333 image: 2.2 GB of fp32 logits, of which the usual
code keeps about ten copies. Here each chunk of anchors passes through the classifier, the loss and the closed-form
gradient of the loss, so that only the gradients of features and weights are kept; nothing is computed twice.

Shapes: ``A`` anchors, ``C`` channels, ``K`` classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_focal_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    label_weights: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    annotated: Tensor | None = None,
    chunk_elements: int = 2**22,
) -> Tensor:
    """Compute the focal loss of the logits ``x @ weight.T + bias``, summed over anchors and classes.

    With ``annotated`` (federated data) the other classes are unknown rather than absent: they are no negatives, while
    an anchor's own label always counts. Only the columns that count are computed.

    Args:
        x: ``(A, C)`` features, of any floating type; logits are computed in the autocast type if autocast is on, the
            loss in fp32 (or fp64).
        weight: ``(K, C)``.
        bias: ``(K,)``.
        labels: ``(A,)`` int64, ``K`` for background; best on the CPU, as their values are read.
        label_weights: ``(A,)`` factor on all terms of an anchor.
        alpha: weight of positive terms, negative ones have ``1 - alpha``.
        gamma: exponent of the modulating factor.
        annotated: int64 indices of the classes annotated in the image, in any order, best on the CPU; ``None``: all.
        chunk_elements: most logits held at once (but at least those of one anchor).

    Returns:
        the summed loss, a scalar of fp32 (or fp64).

    Raises:
        ValueError: shapes that do not fit, a label or an annotated class beyond ``K``.
    """
    num_classes = len(weight)
    if (
        x.ndim != 2
        or x.shape[1] != weight.shape[1]
        or labels.shape != x.shape[:1]
        or label_weights.shape != x.shape[:1]
    ):
        raise ValueError(
            f'features {tuple(x.shape)}, classifier {tuple(weight.shape)}, labels {tuple(labels.shape)} and their '
            f'weights {tuple(label_weights.shape)}; expected (A, C), (K, C), (A,) and (A,)'
        )
    labels = labels.cpu()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(f'label {wrong}, but labels are 0 to {num_classes - 1}, and {num_classes} for background')
    positive = (labels < num_classes).nonzero()[:, 0]  # (P,), in ascending order
    columns = labels[positive]
    negative = None
    if annotated is not None:
        annotated = annotated.cpu()
        if annotated.numel() and not 0 <= int(annotated.min()) <= int(annotated.max()) < num_classes:
            raise ValueError(
                f'annotated classes from {int(annotated.min())} to {int(annotated.max())}, but the classifier has '
                f'{num_classes} (0 to {num_classes - 1})'
            )
        counted = torch.cat([annotated, columns]).unique()  # sorted
        negative = torch.isin(counted, annotated)
        columns = torch.searchsorted(counted, columns)
        counted, negative = (part.to(x.device, non_blocking=True) for part in (counted, negative))
        weight, bias = weight.index_select(0, counted), bias.index_select(0, counted)
    rows = max(1, chunk_elements // max(1, len(weight)))
    # where the positives of each chunk begin and end
    bounds = torch.searchsorted(positive, torch.tensor([*range(0, len(x), rows), len(x)])).tolist()
    at = [part.to(x.device, non_blocking=True) for part in (positive, columns)]
    return _LinearFocalLoss.apply(x, weight, bias, label_weights, *at, negative, alpha, gamma, rows, bounds)


class _LinearFocalLoss(torch.autograd.Function):
    """Loss of positive terms (``positive`` anchors, ``columns``) and ``negative`` columns, ``rows`` at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        label_weights: Tensor,
        positive: Tensor,
        columns: Tensor,
        negative: Tensor | None,
        alpha: float,
        gamma: float,
        rows: int,
        bounds: list[int],
    ) -> Tensor:
        device = x.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        exact = torch.promote_types(weight.dtype, torch.float32)
        learns = any(ctx.needs_input_grad[:3])
        total = torch.zeros((), dtype=exact, device=x.device)
        inputs = (x, weight, bias) if learns else ()
        grads = [torch.zeros_like(t, dtype=x.dtype if t is x else exact) for t in inputs]
        starts = list(range(0, len(x), rows))
        with torch.autocast(device, enabled=False):
            kernel, shift = weight.to(low), bias.to(low)
            for i, start in enumerate(starts):
                chunk = x[start : start + rows].to(low)
                inside = slice(bounds[i], bounds[i + 1])
                at = (positive[inside] - start, columns[inside])
                logits = torch.addmm(shift, chunk, kernel.t()).to(exact)  # (rows, K)
                loss, grad = _focal(logits, at, negative, alpha, gamma, learns)
                factor = label_weights[start : start + rows].to(exact)
                total += loss.sum(1) @ factor
                if learns:
                    grads[2].addmv_(grad.t(), factor)
                    grad = grad.mul_(factor[:, None]).to(low)
                    grads[0][start : start + rows] = grad @ kernel
                    if low == exact:
                        grads[1].addmm_(grad.t(), chunk)
                    else:
                        grads[1] += grad.t() @ chunk
        ctx.save_for_backward(*(grad.to(t.dtype) for grad, t in zip(grads, inputs, strict=True)))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [saved * grad.to(saved.dtype) for saved in ctx.saved_tensors]
        return (*scaled, *[None] * 8)


def _focal(
    logits: Tensor,
    at: tuple[Tensor, Tensor],
    negative: Tensor | None,
    alpha: float,
    gamma: float,
    learns: bool,
) -> tuple[Tensor, Tensor | None]:
    """Terms ``(rows, K)`` and their derivative by the logits; ``at`` are the rows and columns of positive terms."""
    prob = logits.sigmoid()
    positive_logits, positive_prob = logits[at], prob[at]
    power = (prob.square() if gamma == 2 else prob.pow(gamma)).mul_(1 - alpha)
    loss = F.softplus(logits).mul_(power)  # -(1 - alpha) p^gamma log(1 - p)
    rest = 1 - positive_prob
    modulating = alpha * rest.pow(gamma)
    positive_loss = modulating * F.softplus(-positive_logits)  # -alpha (1 - p)^gamma log(p)
    grad = None
    if learns:
        # (1 - alpha) p^(gamma + 1) + gamma (1 - p) loss
        grad = power.mul_(prob).add_(loss, alpha=gamma).addcmul_(loss, prob, value=-gamma)
        if negative is not None:
            grad *= negative
        grad[at] = -modulating * rest - gamma * positive_prob * positive_loss
    if negative is not None:
        loss *= negative
    loss[at] = positive_loss
    return loss, grad
