"""From pixels to tokens and from one stage to the next.

Swin's two layers (patch embedding and patch merging) and the convolutions that CoSwin puts in their place (Florence,
section 2.3; layers as in CvT, arXiv 2103.15808, and the public ``coswin.py`` of MedImageInsight).

Shapes: ``B`` batch, ``C`` channels, ``H, W`` map, ``L = H W``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B, L, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, L, C)`` to ``(B, C, H, W)``."""
    return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """Non-overlapping patches, then LayerNorm; keys ``proj`` and ``norm`` (Swin).

    Right and bottom are padded with zeros to a whole number of patches.

    Args:
        in_channels: channels of the picture.
        embed_dims: channels of a token.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """``(B, 3, H, W)`` to tokens ``(B, L, C)`` and the size of their map."""
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        # channels last is the order of tokens: the norm then reads them as they are
        x = self.proj(x.contiguous(memory_format=torch.channels_last))  # (B, C, H / patch, W / patch)
        return self.norm(to_tokens(x)), tuple(x.shape[-2:])

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Map size for a picture of ``size``."""
        return tuple(-(-s // self.patch_size) for s in size)


class PatchMerging(nn.Module):
    """Four neighbours become one token: LayerNorm over ``4 C``, linear to ``2 C``; keys ``norm``, ``reduction`` (Swin).

    Neighbours come in the order of the public code: upper left, lower left, upper right, lower right. An odd map gets
    a row or column of zeros at its end.

    Args:
        in_channels: ``C``.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, 2 * in_channels, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """``(B, L, C)`` of a map of ``size`` to ``(B, L / 4, 2 C)`` and the new size."""
        height, width = size
        x = x.unflatten(1, size)  # (B, H, W, C)
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = torch.cat([x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)], -1)  # (B, H / 2, W / 2, 4 C)
        return self.reduction(self.norm(x.flatten(1, 2))), tuple(x.shape[1:3])

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Map size after merging a map of ``size``."""
        return tuple(-(-s // 2) for s in size)


class ConvEmbed(nn.Module):
    """Overlapping convolution, then LayerNorm; keys ``proj`` and ``norm`` (CoSwin).

    Args:
        in_channels: channels that come in.
        embed_dims: channels that go out.
        kernel_size: side of the kernel.
        stride: step of the kernel. The padding follows: 2 for CoSwin's stem (7, 4), 1 for its merges (3, 2).
    """

    def __init__(self, in_channels: int, embed_dims: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        padding = (kernel_size - stride + 1) // 2
        self.proj = nn.Conv2d(in_channels, embed_dims, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, tuple[int, int]]:
        """A picture ``(B, 3, H, W)``, or tokens ``(B, L, C)`` with the ``size`` of their map, to tokens and size."""
        if size is not None:
            x = to_map(x, size)
        x = self.proj(x)  # (B, C, H / stride, W / stride)
        return self.norm(to_tokens(x)), tuple(x.shape[-2:])

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Map size for an input of ``size``."""
        kernel, stride, padding = (values[0] for values in (self.proj.kernel_size, self.proj.stride, self.proj.padding))
        return tuple((s + 2 * padding - kernel) // stride + 1 for s in size)
