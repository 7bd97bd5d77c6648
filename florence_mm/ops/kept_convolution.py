"""Convolutions in inference on a CPU: weights that are kept in oneDNN's layout, and patches as rows of a product.

PyTorch brings the weight of a convolution into that layout in every call, which for the last merge of CoSwin-T takes
longer than its products.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .inference import WeightsSnapshot, fast_path_allowed, is_plain
from .linear import product
from .mkldnn_products import has_bfloat16_products, has_mkldnn, prefers_onednn

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


def embed_patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution whose patches do not overlap; in inference by one product, where that is faster.

    Args:
        layer: the convolution; its stride is its kernel's size.
        x: ``(B, C, H, W)``.

    Returns:
        ``(B, N, h, w)``.
    """
    size = layer.kernel_size
    whole = layer.stride == size and not any(layer.padding) and layer.groups == 1 and max(layer.dilation) == 1
    if not whole or x.dtype != torch.float32 or not prefers_onednn() or not is_plain(layer):
        return layer(x)
    if not fast_path_allowed(x, layer.weight):
        return layer(x)
    h, w = x.shape[2] // size[0], x.shape[3] // size[1]
    patches = x[:, :, : h * size[0], : w * size[1]].unflatten(3, (w, size[1])).unflatten(2, (h, size[0]))
    rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, C, h, p, w, p) -> (B, h, w, C p p)
    return product(rows, layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
