"""Linear layers by oneDNN's own operators, which do more than a product in one pass.

PyTorch writes the bias into the output before it multiplies, and in bfloat16 rounds the product before the activation;
oneDNN adds the bias, applies the activation and adds the residual to the float32 sums, and rounds once. In float32
PyTorch multiplies by MKL, which does not use all of an AMD processor with AVX-512: oneDNN is 1.05 to 1.25 times as fast
there. Results differ by rounding.

Shapes: ``x`` is ``(M, C)``, weights are ``(N, C)``.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn


def has_mkldnn() -> bool:
    """Whether oneDNN (MKL-DNN) and its own operators are there, and it is not switched off."""
    mkldnn = torch.backends.mkldnn
    return mkldnn.is_available() and mkldnn.enabled and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def has_bfloat16_products() -> bool:
    """Whether oneDNN multiplies in bfloat16 on this processor."""
    return has_mkldnn() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@cache
def _is_amd_with_avx512() -> bool:
    processors = Path('/proc/cpuinfo')
    capable = torch.backends.cpu.get_cpu_capability() == 'AVX512'
    return capable and processors.exists() and 'AuthenticAMD' in processors.read_text()


def prefers_onednn() -> bool:
    """Whether float32 products are faster by oneDNN: on AMD processors with AVX-512, as Linux names them."""
    return has_mkldnn() and _is_amd_with_avx512()


def gelu_linear(x: Tensor, fc: nn.Linear) -> Tensor:
    """Compute ``gelu(fc(x))``, the exact GELU of the float32 sums, ``(M, C)`` to ``(M, N)``."""
    return torch.ops.mkldnn._linear_pointwise(x, fc.weight, fc.bias, 'gelu', [], 'none')


def linear_add(x: Tensor, fc: nn.Linear, residual: Tensor) -> Tensor:
    """Compute ``fc(x) + residual``, rounded once, ``(M, C)`` and ``(M, N)`` to ``(M, N)``."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, fc.weight, fc.bias, 'add')
