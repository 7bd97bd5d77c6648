"""Patches of pictures as rows of one product."""

import torch
from torch import Tensor, nn

from .inference import fast_path_allowed, is_plain
from .linear import product
from .mkldnn_products import prefers_onednn


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
