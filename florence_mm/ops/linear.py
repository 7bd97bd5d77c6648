"""Products with the weights of linear layers, by the library that is faster on this processor."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .mkldnn_products import prefers_onednn


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a linear layer's weight, ``x @ weight.T + bias``, without gradients.

    Args:
        x: ``(..., C)``.
        weight: ``(D, C)``, also transposed in memory.
        bias: ``(D,)``.

    Returns:
        ``(..., D)``.
    """
    if x.dtype == torch.float32 and x.device.type == 'cpu' and x.numel() and prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')
    return F.linear(x, weight, bias)
