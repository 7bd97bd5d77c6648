"""Convolutions whose weights are kept in oneDNN's layout.

PyTorch brings the weight of a convolution into that layout in every call, which for the last merge of CoSwin-T takes
longer than its products.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .inference import WeightsSnapshot, fast_path_allowed, is_plain
from .mkldnn_products import has_bfloat16_products, has_mkldnn

_KEPT = 100_000  # numbers in the weight of a convolution, from which on keeping it is worth its check


class _Packed(NamedTuple):
    """A weight in oneDNN's layout.

    Attributes:
        shape: shape of the input that it was laid out for.
        snapshot: of the weight.
        weight: the weight in that layout.
    """

    shape: torch.Size
    snapshot: WeightsSnapshot
    weight: Tensor


_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution; in inference on a CPU its weight is kept in oneDNN's layout, and the result is the same.

    Args:
        layer: the convolution.
        x: ``(B, C, H, W)``, fastest in channels-last memory.

    Returns:
        ``(B, N, H', W')``.
    """
    if type(layer) is not nn.Conv2d or not fast_path_allowed(x) or not is_plain(layer) or not _is_kept(layer, x):
        return layer(x)
    weight, padding, stride = layer.weight, list(layer.padding), list(layer.stride)
    settings = padding, stride, list(layer.dilation), layer.groups
    kept = _packed.get(layer)
    if kept is None or kept.shape != x.shape or not kept.snapshot.matches([weight]):
        laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, list(x.shape))
        kept = _packed[layer] = _Packed(x.shape, WeightsSnapshot([weight]), laid_out)
    return torch.ops.mkldnn._convolution_pointwise(x, kept.weight, layer.bias, *settings, 'none', [], '')


def _is_kept(layer: nn.Conv2d, x: Tensor) -> bool:
    weight = layer.weight
    return (
        weight.numel() >= _KEPT
        and layer.padding_mode == 'zeros'
        and not isinstance(layer.padding, str)
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight.dtype == x.dtype
        and weight.device == x.device
        and ((x.dtype == torch.float32 and has_mkldnn()) or (x.dtype == torch.bfloat16 and has_bfloat16_products()))
    )
