"""Activation functions that torch lacks."""

import torch.nn.functional as F
from torch import Tensor

#: Factor of QuickGELU: ``x * sigmoid(1.702 x)`` is ``silu(1.702 x) / 1.702``.
QUICK_GELU_FACTOR = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """Compute ``x * sigmoid(1.702 x)``, the approximate GELU of CLIP, for a tensor of any shape."""
    return F.silu(QUICK_GELU_FACTOR * x) / QUICK_GELU_FACTOR
