"""Products with the weights of linear layers, by the library that is faster on this processor."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .mkldnn_products import prefers_onednn

# Multiplications from which oneDNN is taken. It makes a kernel for each new number of rows, which texts change in
# each step, in the time of 40 million of them.
_ONEDNN_MULTIPLICATIONS = 2**24
# input channels up to which both libraries add in the same order, so that the choice changes no result
_SAME_ORDER = 192


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a linear layer's weight, ``x @ weight.T + bias``, without gradients.

    Args:
        x: ``(..., C)``.
        weight: ``(D, C)``, also transposed in memory.
        bias: ``(D,)``.

    Returns:
        ``(..., D)``.
    """
    fp32 = x.dtype == torch.float32 and x.device.type == 'cpu' and x.numel()
    if fp32 and prefers_onednn() and _is_worth_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')
    return F.linear(x, weight, bias)


def _is_worth_onednn(x: Tensor, weight: Tensor) -> bool:
    return x.shape[-1] > _SAME_ORDER or x.numel() * weight.shape[0] >= _ONEDNN_MULTIPLICATIONS
