"""Patch embedding and merging of Swin, and the convolutions that CoSwin puts in their place (Florence,
section 2.3; layers as in CvT, arXiv 2103.15808, and the public ``coswin.py`` of MedImageInsight), for images and clips.

Shapes: ``B`` batch, ``C`` channels, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens, the product of ``S``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
# the order of tokens: a norm then reads a convolution's output as it is
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def to_tokens(x: Tensor) -> Tensor:
    """``(B, C, *S)`` to ``(B, L, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(B, L, C)`` to ``(B, C, *S)``."""
    return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """Non-overlapping patches, then LayerNorm; keys ``proj`` and ``norm`` (Swin, Video Swin).

    Every axis is padded with zeros at its end to a whole number of patches.

    Args:
        in_channels: channels of the picture.
        embed_dims: channels of a token.
        patch_size: extent of a patch along each axis, in frames and pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = _CONV[len(patch_size)](in_channels, embed_dims, self.patch_size, self.patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """``(B, 3, *S)`` to tokens ``(B, L, C)`` and the size of their map."""
        missing = [-s % p for s, p in zip(x.shape[2:], self.patch_size, strict=True)]
        if any(missing):
            x = F.pad(x, [n for m in reversed(missing) for n in (0, m)])
        x = self.proj(x.contiguous(memory_format=_CHANNELS_LAST[len(missing)]))  # (B, C, *(S / patch))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Map size for a picture of ``size``."""
        return tuple(-(-s // p) for s, p in zip(size, self.patch_size, strict=True))


class PatchMerging(nn.Module):
    """Four neighbours become one token: LayerNorm over ``4 C``, linear to ``2 C``; keys ``norm``, ``reduction`` (Swin).

    Neighbours in space: frames of a clip stay apart (Video Swin). They come in the order of the public code: upper
    left, lower left, upper right, lower right. An odd map gets a row or column of zeros at its end.

    Args:
        in_channels: ``C``.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, 2 * in_channels, bias=False)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """``(B, L, C)`` of a map of ``size`` to ``(B, L / 4, 2 C)`` and the new size."""
        height, width = size[-2:]
        x = x.unflatten(1, size)  # (B, *S, C)
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # (B, [T,] H / 2, W / 2, 4 C)
        x = torch.cat([x[..., row::2, col::2, :] for col in (0, 1) for row in (0, 1)], -1)
        return self.reduction(self.norm(x.flatten(1, -2))), tuple(x.shape[1:-1])


class ConvEmbed(nn.Module):
    """Overlapping convolution, then LayerNorm; keys ``proj`` and ``norm`` (CoSwin).

    In space the padding follows from kernel and stride: 2 for CoSwin's stem (7, 4), 1 for its merges (3, 2), of zeros.
    In time a clip is continued by its first and last frame, so that a still clip looks still to every kernel, and no
    frame is left out: ``T`` frames become ``ceil(T / stride)``.

    Args:
        in_channels: channels that come in.
        embed_dims: channels that go out.
        kernel_size: extent of the kernel along each axis.
        stride: step of the kernel along each axis.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, kernel_size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        padding = [(k - s + 1) // 2 for k, s in zip(kernel_size, stride, strict=True)]
        padding[:-2] = [0] * (len(padding) - 2)  # time is padded by _continue
        self.proj = _CONV[len(padding)](in_channels, embed_dims, tuple(kernel_size), tuple(stride), tuple(padding))
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor, size: tuple[int, ...] | None = None) -> tuple[Tensor, tuple[int, ...]]:
        """A picture ``(B, 3, *S)``, or tokens ``(B, L, C)`` with the ``size`` of their map, to tokens and size."""
        if size is not None:
            x = to_map(x, size)
        if x.ndim == 5:
            x = self._continue(x)
        x = self.proj(x)  # (B, C, *(S / stride))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def _continue(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` with the frames before and after it that the kernel reaches."""
        length, kernel, stride = x.shape[2], self.proj.kernel_size[0], self.proj.stride[0]
        before = max(kernel - stride + 1, 0) // 2
        after = (-(-length // stride) - 1) * stride + kernel - length - before
        if before <= 0 and after <= 0:
            return x
        index = torch.arange(-before, length + max(after, 0), device=x.device).clamp(0, length - 1)
        return x.index_select(2, index)

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Map size for a picture of ``size``."""
        axes = zip(
            size[-2:], *(v[-2:] for v in (self.proj.kernel_size, self.proj.stride, self.proj.padding)), strict=True
        )
        space = tuple((s + 2 * padding - kernel) // stride + 1 for s, kernel, stride, padding in axes)
        return tuple(-(-s // self.proj.stride[0]) for s in size[:-2]) + space
