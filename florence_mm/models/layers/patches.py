"""Patch embedding and patch merging, for maps of two axes (images) and three (clips).

They are Swin's, or CoSwin's convolutions instead (Florence, section 2.3; layers as in CvT, arXiv 2103.15808). Keys are
those of Swin's ``swin_transformer.py``, and for convolutions of CoSwin's ``coswin.py`` (MedImageInsight).

Shapes: ``B`` batch, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens of the map, the product of ``S``,
``C`` channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.ops.inference import convolve
from florence_mm.ops.recomputed import norm_linear, recomputing_allowed

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
# channels last: the norm can read the convolution's output as tokens without a copy
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def to_tokens(x: Tensor) -> Tensor:
    """Flatten a map ``(B, C, *S)`` to tokens ``(B, L, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Reshape tokens ``(B, L, C)`` to a map ``(B, C, *S)``."""
    return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """Patch embedding of Swin and Video Swin: a convolution of non-overlapping patches, then LayerNorm.

    Every axis is padded with zeros at its end to a multiple of the patch. Keys: ``proj``, ``norm``.

    Args:
        in_channels: channels of the input.
        embed_dims: channels of a token.
        patch_size: size of a patch along each axis, in frames and pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = _CONV[len(patch_size)](in_channels, embed_dims, self.patch_size, self.patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Embed ``(B, 3, *S)``; returns tokens ``(B, L, C)`` and the size of their map."""
        missing = [-s % p for s, p in zip(x.shape[2:], self.patch_size, strict=True)]
        if any(missing):
            x = F.pad(x, [n for m in reversed(missing) for n in (0, m)])
        x = self.proj(x.contiguous(memory_format=_CHANNELS_LAST[len(missing)]))  # (B, C, *(S / patch))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the map for an input of ``size``."""
        return tuple(-(-s // p) for s, p in zip(size, self.patch_size, strict=True))


class PatchMerging(nn.Module):
    """Patch merging of Swin: four neighbours become one token by LayerNorm over ``4 C`` and a linear layer to ``2 C``.

    Time steps are not merged (Video Swin). Neighbours are in the order of the public code: upper left, lower left,
    upper right, lower right. Odd sizes are padded with zeros at their end. Keys: ``norm``, ``reduction``.

    Args:
        in_channels: ``C``.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, 2 * in_channels, bias=False)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """Merge tokens ``(B, L, C)`` of a map of ``size``; returns ``(B, L / 4, 2 C)`` and the new size."""
        height, width = size[-2:]
        x = x.unflatten(1, size)  # (B, *S, C)
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2))  # (B, [T,] H / 2, row, W / 2, column, C)
        x = x.movedim(-4, -2).flatten(-3)  # (B, [T,] H / 2, W / 2, 4 C)
        tokens, size = x.flatten(1, -2), tuple(x.shape[1:-1])
        if self.training and recomputing_allowed(x, self, self.norm, self.reduction):
            return norm_linear(tokens, self.norm, self.reduction.weight, None), size
        return self.reduction(self.norm(tokens)), size


class ConvEmbed(nn.Module):
    """Convolutional embedding of CoSwin: a convolution of overlapping patches, then LayerNorm; keys ``proj``, ``norm``.

    In space, zero padding follows from kernel and stride: 2 for CoSwin's stem (7, 4), 1 for its merges (3, 2). In time,
    the first and last frame are repeated, so that a clip of equal frames gives equal time steps; ``T`` frames become
    ``ceil(T / stride)`` time steps.

    Args:
        in_channels: channels of the input.
        embed_dims: channels of the output.
        kernel_size: size of the kernel along each axis.
        stride: stride along each axis.
        padding: zeros on both sides of each axis in space; default: what follows from kernel and stride.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if padding is None:
            padding = [(k - s + 1) // 2 for k, s in zip(kernel_size, stride, strict=True)]
        padding = list(padding)
        padding[:-2] = [0] * (len(padding) - 2)  # time is padded by _pad_time
        self.proj = _CONV[len(padding)](in_channels, embed_dims, tuple(kernel_size), tuple(stride), tuple(padding))
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor, size: tuple[int, ...] | None = None) -> tuple[Tensor, tuple[int, ...]]:
        """Embed an input ``(B, 3, *S)``, or tokens ``(B, L, C)`` of a map of ``size``; returns tokens and map size."""
        if size is not None:
            x = to_map(x, size)
        if x.ndim == 5:
            x = self._pad_time(x)
        x = convolve(self.proj, x)  # (B, C, *(S / stride))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def _pad_time(self, x: Tensor) -> Tensor:
        """Repeat the first and last frame of ``(B, C, T, H, W)`` as far as the kernel reaches."""
        length, kernel, stride = x.shape[2], self.proj.kernel_size[0], self.proj.stride[0]
        before = max(kernel - stride + 1, 0) // 2
        after = (-(-length // stride) - 1) * stride + kernel - length - before
        if before <= 0 and after <= 0:
            return x
        index = torch.arange(-before, length + max(after, 0), device=x.device).clamp(0, length - 1)
        return x.index_select(2, index)

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the map for an input of ``size``."""
        axes = zip(
            size[-2:], *(v[-2:] for v in (self.proj.kernel_size, self.proj.stride, self.proj.padding)), strict=True
        )
        space = tuple((s + 2 * padding - kernel) // stride + 1 for s, kernel, stride, padding in axes)
        return tuple(-(-s // self.proj.stride[0]) for s in size[:-2]) + space
