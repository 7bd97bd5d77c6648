"""Optimal transport between two sets of tokens by IPOT (arXiv 1802.04307), as UNITER and ViLT align words and images.

Sources: UNITER (arXiv 1909.11740, section 3.2), ``UNITER/model/ot.py``; ViLT (arXiv 2102.03334, section 3.2).

Shape legend: ``B`` pairs of sets, ``M`` items of the first set, ``N`` of the second, ``C`` channels.
"""

import torch
from torch import Tensor

from .precision import at_least_float32

_LEAST_NORM = 1e-5  # of the public code: norms of vectors are at least this, so that a vector of zeros has cosine 0


def cosine_distances(x: Tensor, y: Tensor) -> Tensor:
    """Compute 1 - cosine of all pairs of vectors, at least fp32.

    Args:
        x: ``(B, M, C)``.
        y: ``(B, N, C)``.

    Returns:
        ``(B, M, N)``, from 0 to 2.
    """
    x, y = (torch.nn.functional.normalize(at_least_float32(z), dim=-1, eps=_LEAST_NORM) for z in (x, y))
    return 1 - x @ y.transpose(1, 2)


@torch.no_grad()
def transport_plan(
    cost: Tensor,
    row_mask: Tensor | None = None,
    column_mask: Tensor | None = None,
    beta: float = 0.5,
    iterations: int = 50,
    inner: int = 1,
) -> Tensor:
    """Compute the plan that moves equal shares of the rows to equal shares of the columns at the least cost.

    IPOT (inexact proximal point iterations): each iteration multiplies the plan by ``exp(-cost / beta)`` and scales its
    rows and columns. It goes to the exact plan, unlike Sinkhorn's iterations, which go to a smoothed one. The plan has
    no gradient.

    Args:
        cost: ``(B, M, N)``.
        row_mask: ``(B, M)`` bool, True where a row is real; None: all are.
        column_mask: ``(B, N)`` bool, True where a column is real; None: all are.
        beta: step of the proximal point method; 0.5 in UNITER.
        iterations: number of steps; 50 in UNITER.
        inner: scalings of columns and rows per step; 1 in UNITER.

    Returns:
        ``(B, M, N)``, at least fp32; 0 at padding. Each real row sums to 1 / (number of real rows), and each real
        column, as far as the iterations have converged, to 1 / (number of real columns). All 0 if a set is empty.

    Raises:
        ValueError: a number is out of its range, or a mask has another shape.
    """
    if not beta > 0 or iterations < 1 or inner < 1:
        raise ValueError(
            f'beta={beta}, iterations={iterations} and inner={inner} of the transport plan must be above 0; UNITER has '
            '0.5, 50 and 1'
        )
    cost = at_least_float32(cost)
    rows, columns = (
        cost.new_ones(cost.shape[0], size, dtype=torch.bool) if mask is None else mask.to(cost.device)
        for mask, size in ((row_mask, cost.shape[1]), (column_mask, cost.shape[2]))
    )
    if rows.shape != cost.shape[:2] or columns.shape != cost.shape[::2]:
        raise ValueError(
            f'the masks of the transport plan have shapes {tuple(rows.shape)} and {tuple(columns.shape)}, and the cost '
            f'{tuple(cost.shape)}; give (B, M) and (B, N)'
        )
    real = rows[:, :, None] & columns[:, None]  # (B, M, N)
    row_share, column_share = (mask.to(cost.dtype) / mask.sum(1, keepdim=True).clamp(min=1) for mask in (rows, columns))
    # of plans only the shares matter, so that costs may be shifted: the least of each row to 0, against underflow
    cost = cost.masked_fill(~real, torch.inf)
    least = cost.amin(2, keepdim=True)
    kernel = torch.exp(-(cost - torch.where(least.isfinite(), least, 0)) / beta)  # (B, M, N), 0 at padding
    plan, row_scale = real.to(cost.dtype), row_share
    for _ in range(iterations):
        plan = kernel * plan
        for _ in range(inner):
            column_scale = _divided(column_share, (row_scale[:, None] @ plan)[:, 0])  # (B, N)
            row_scale = _divided(row_share, (plan @ column_scale[:, :, None])[:, :, 0])  # (B, M)
        plan = row_scale[:, :, None] * plan * column_scale[:, None]
    return plan


def _divided(share: Tensor, total: Tensor) -> Tensor:
    """Divide where the share is not 0."""
    return torch.where(share > 0, share / total.clamp(min=torch.finfo(total.dtype).tiny), 0)


def transport_costs(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None = None,
    y_mask: Tensor | None = None,
    beta: float = 0.5,
    iterations: int = 50,
) -> Tensor:
    """Compute the cost of moving tokens ``x`` to tokens ``y`` by cosine distances, at least fp32.

    The gradient is that of the distances, weighted by the plan.

    Args:
        x: ``(B, M, C)``.
        y: ``(B, N, C)``.
        x_mask: ``(B, M)`` bool, True where a token is real; None: all are.
        y_mask: ``(B, N)`` bool, True where a token is real; None: all are.
        beta: see :func:`transport_plan`.
        iterations: see :func:`transport_plan`.

    Returns:
        ``(B,)``.
    """
    with torch.autocast(x.device.type, enabled=False):
        cost = cosine_distances(x, y)
        return (cost * transport_plan(cost, x_mask, y_mask, beta, iterations)).sum((1, 2))
