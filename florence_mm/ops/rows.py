"""Weighted sums of rows of a table, and their gradients: bilinear sampling with ``embedding_bag``.

With pixels as rows, a bilinear sample is a weighted sum of four rows, which is what ``embedding_bag`` computes. The
gradient of the table is again an ``embedding_bag``, over the indices sorted by row: no atomic additions, so equal runs
give equal bits on every device.

Shapes: ``S`` sums, ``M`` rows in each, ``R`` rows of the table, ``C`` channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .inference import is_recorded


def sum_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Compute weighted sums of rows of ``table``.

    Args:
        table: ``(R, C)``.
        index: ``(S, M)`` integers in ``[0, R)``.
        weight: ``(S, M)``.

    Returns:
        Tensor: ``(S, C)``, differentiable in ``table`` and ``weight``.

    >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> sum_rows(table, torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.25]]))
    tensor([[1.0000, 0.5000]])
    """
    if is_recorded():  # ONNX has no bags of rows but a loop over them, and OpenVINO does not read it
        return torch.einsum('smc,sm->sc', table[index], weight.to(table.dtype))
    return F.embedding_bag(index, table, per_sample_weights=weight.to(table.dtype), mode='sum')


def scatter_rows(values: Tensor, index: Tensor, weight: Tensor, rows: int) -> Tensor:
    """Add each value to the rows it was summed from (the transpose of :func:`sum_rows`).

    Args:
        values: ``(S, C)``.
        index: ``(S, M)`` integers in ``[0, rows)``.
        weight: ``(S, M)``.
        rows: ``R``.

    Returns:
        Tensor: ``(R, C)``.
    """
    flat = index.reshape(-1)
    order = flat.argsort(stable=True)
    if flat.device.type == 'cpu':
        counts = flat.bincount(minlength=rows)
    else:  # a GPU would be waited for, to learn the largest index
        counts = flat.new_zeros(rows).index_add_(0, flat, torch.ones_like(flat))
    ends = counts.cumsum(0)
    return F.embedding_bag(
        order // index.shape[1],
        values,
        torch.cat([ends.new_zeros(1), ends]),
        per_sample_weights=weight.reshape(-1)[order].to(values.dtype),
        mode='sum',
        include_last_offset=True,
    )


def dot_rows(values: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Dot products ``values[s] . table[index[s, m]]``, ``(S, M)``: the gradient of the weights of :func:`sum_rows`.

    Args:
        values: ``(S, C)``.
        table: ``(R, C)``.
        index: ``(S, M)`` integers in ``[0, R)``.
    """
    sums = torch.arange(len(index), device=index.device)
    starts, owner = sums * index.shape[1], sums.repeat_interleave(index.shape[1])
    mode_sum, no_padding = 0, -1
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        values, table, index.reshape(-1), starts, owner, mode_sum, no_padding
    )
    return products.reshape(index.shape)
