"""Linear layers in bfloat16 by oneDNN's own operators, which do more than a product in one pass.

PyTorch writes the bias into the output before it multiplies, and rounds the product before the activation; oneDNN adds
the bias, applies the activation and adds the residual to the float32 sums, and rounds once.

Shapes: ``x`` is ``(M, C)``, weights are ``(N, C)``.
"""

import torch
from torch import Tensor, nn


def has_mkldnn() -> bool:
    """Whether oneDNN (MKL-DNN) and its own operators are there, and it is not switched off."""
    mkldnn = torch.backends.mkldnn
    return mkldnn.is_available() and mkldnn.enabled and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def has_bfloat16_products() -> bool:
    """Whether oneDNN multiplies in bfloat16 on this processor."""
    return has_mkldnn() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def gelu_linear(x: Tensor, fc: nn.Linear) -> Tensor:
    """Compute ``gelu(fc(x))`` in bfloat16, with the exact GELU of the float32 sums, ``(M, C)`` to ``(M, N)``."""
    return torch.ops.mkldnn._linear_pointwise(x, fc.weight, fc.bias, 'gelu', [], 'none')


def linear_add(x: Tensor, fc: nn.Linear, residual: Tensor) -> Tensor:
    """Compute ``fc(x) + residual`` in bfloat16, rounded once, ``(M, C)`` and ``(M, N)`` to ``(M, N)``."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, fc.weight, fc.bias, 'add')
