"""Products with the weights of linear layers, by the library that is faster on this processor.

PyTorch computes float32 products on a CPU by MKL, which does not use all of an AMD processor with AVX-512. oneDNN,
which PyTorch has too and uses for bfloat16, is 1.05 to 1.25 times as fast there. Results differ by rounding.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .mkldnn_products import has_mkldnn


@cache
def _is_amd_with_avx512() -> bool:
    processors = Path('/proc/cpuinfo')
    capable = torch.backends.cpu.get_cpu_capability() == 'AVX512'
    return capable and processors.exists() and 'AuthenticAMD' in processors.read_text()


def prefers_onednn() -> bool:
    """Whether float32 products are faster by oneDNN: on AMD processors with AVX-512, as Linux names them."""
    return has_mkldnn() and _is_amd_with_avx512()


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
