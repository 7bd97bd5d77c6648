"""Types of numbers to compute in, whatever type of numbers the input has."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert a tensor of a smaller type, such as bfloat16, to float32; others are returned unchanged.

    >>> [at_least_float32(torch.zeros(2, dtype=dtype)).dtype for dtype in (torch.bfloat16, torch.float64, torch.uint8)]
    [torch.float32, torch.float64, torch.float32]
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
