"""Types of numbers to compute in, and those that a processor multiplies faster than float32."""

import torch
from torch import Tensor

from .mkldnn_products import has_bfloat16_products


def at_least_float32(x: Tensor) -> Tensor:
    """Convert a tensor of a smaller type, such as bfloat16, to float32; others are returned unchanged.

    >>> [at_least_float32(torch.zeros(2, dtype=dtype)).dtype for dtype in (torch.bfloat16, torch.float64, torch.uint8)]
    [torch.float32, torch.float64, torch.float32]
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def bfloat16_units(device: torch.device) -> str | None:
    """Name what multiplies in bfloat16 faster than in float32 on a device; None if nothing does.

    oneDNN computes in bfloat16 on older processors too, by converting to float32, which takes longer.
    """
    if device.type == 'cuda':
        return 'a GPU with bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != 'cpu' or not has_bfloat16_products():
        return None
    units = {'_is_amx_tile_supported': 'AMX', '_is_avx512_bf16_supported': 'AVX-512 bf16'}
    return next((name for asked, name in units.items() if getattr(torch.cpu, asked, bool)()), None)
