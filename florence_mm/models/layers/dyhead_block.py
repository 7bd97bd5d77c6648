"""One block of Dynamic Head (arXiv 2106.08322), as published: scale-, spatial- and task-aware attention over a pyramid.

Facts were read from DynamicHead ``dyhead/dyhead.py`` and ``dyhead/dyrelu.py``; the paper's equations 2 to 6 name the
three attentions. Shapes: ``B`` images, ``C`` channels, ``H, W`` the size of a level, ``N`` branches that meet in a
level (three, two at the ends of the pyramid, one alone).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.ops.deform_conv import modulated_deform_conv2d

TAPS = 9  # of a 3x3 kernel
OFFSET_MODES = ('resized', 'legacy')


class DeformConvNorm(nn.Module):
    """A 3x3 modulated deformable convolution with bias, then group normalisation.

    The bias matters although a norm follows: the norm's statistics run over several channels.

    Args:
        in_channels: channels of the map.
        out_channels: channels of the result, a multiple of 16.
        stride: of the sampling grid.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        # channels last, as the convolution multiplies it
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, 3, 3).contiguous(memory_format=torch.channels_last)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = nn.GroupNorm(16, out_channels)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """``(B, C_in, H, W)``, ``(B, 18, P, Q)`` and ``(B, 9, P, Q)`` to ``(B, C, P, Q)``."""
        return self.norm(modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, self.stride, padding=1))


class DyReLU(nn.Module):
    """Task-aware attention: the larger of two lines whose slopes and intercepts the image chooses, a channel each.

    Args:
        channels: ``C``, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``max(a1 * x + b1, a2 * x + b2)``.

        Args:
            x: ``(B, C, H, W)``.
            context: ``(B, C)``, the mean of ``x`` over its positions.

        Returns:
            ``(B, C, H, W)``.
        """
        half = F.hardsigmoid(self.fc2(F.relu(self.fc1(context)))) - 0.5  # (B, 4C), within -0.5 and 0.5
        a1, b1, a2, b2 = half[..., None, None].chunk(4, dim=1)  # (B, C, 1, 1) each
        return torch.maximum(torch.addcmul(b1, x, 2 * a1 + 1), torch.addcmul(b2, x, 2 * a2))


class DyHeadBlock(nn.Module):
    """Each level looks at itself and its two neighbours through deformable convolutions that share its offsets.

    For a level: ``mid`` reads the level, ``low`` (stride 2) the finer one before it, ``high`` the coarser one after
    it and is enlarged; each result is weighted by a scalar from its own mean (scale-aware attention), the weighted
    results are averaged and go through :class:`DyReLU` (task-aware attention). Offsets and masks come from a plain
    3x3 convolution of the level. All levels share one set of parameters.

    ``high`` makes an output of the coarser level's size, for which the level's offsets are too many. The public code
    hands them over as they are, and its kernel reads the first numbers of the flat memory as if they had the smaller
    shape (DynamicHead issue 25): the offsets that a position gets were predicted for others, in part for other
    taps. ``offset_mode`` chooses:

    - ``'legacy'`` reads the same numbers. Public weights were trained so and need it.
    - ``'resized'`` interpolates offsets and masks to the coarser size and multiplies the offsets by the ratio of the
      sizes, so that a position gets what was predicted where it lies, in pixels of the map that is read. Without
      public weights nothing speaks for the other reading. ``mid`` and ``low`` are as published in both modes: each
      of their outputs has an offset of its own.

    Parameters: ``offset_conv``, ``{high,mid,low}.{weight,bias,norm}``, ``scale_attn``, ``task_attn.{fc1,fc2}``.
    Convolutions start as in the public code: normal with standard deviation 0.01 and zero bias, ``offset_conv``
    and the linear layers of ``task_attn`` with PyTorch's own.

    Args:
        channels: ``C``, a multiple of 16.
        in_channels: channels of the incoming maps; ``None``: ``channels``.
        offset_mode: ``'resized'`` or ``'legacy'``.

    Raises:
        ValueError: another ``offset_mode`` or a number of channels that 16 does not divide.
    """

    def __init__(self, channels: int = 256, in_channels: int | None = None, offset_mode: str = 'resized') -> None:
        super().__init__()
        if offset_mode not in OFFSET_MODES:
            raise ValueError(f'offset_mode={offset_mode!r} does not exist; choose from {OFFSET_MODES}')
        if channels % 16:
            raise ValueError(f'channels={channels}, but group normalisation needs a multiple of 16')
        in_channels = in_channels or channels
        self.offset_mode = offset_mode
        self.offset_conv = nn.Conv2d(in_channels, 3 * TAPS, 3, padding=1)
        self.high = DeformConvNorm(in_channels, channels)
        self.mid = DeformConvNorm(in_channels, channels)
        self.low = DeformConvNorm(in_channels, channels, stride=2)
        self.scale_attn = nn.Linear(channels, 1)
        self.task_attn = DyReLU(channels)
        nn.init.normal_(self.scale_attn.weight, std=0.01)
        nn.init.zeros_(self.scale_attn.bias)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """A pyramid through the block.

        Args:
            feats: maps ``(B, C_in, H_l, W_l)``, finest first, each half the size of the one before it, rounded up.

        Returns:
            maps ``(B, C, H_l, W_l)``.

        Raises:
            ValueError: a level that is not half the size of the one before it.
        """
        sizes = [feat.shape[2:] for feat in feats]
        for fine, coarse in zip(sizes, sizes[1:], strict=False):
            if any((f + 1) // 2 != c for f, c in zip(fine, coarse, strict=True)):
                raise ValueError(
                    f'levels of sizes {[tuple(size) for size in sizes]}; Dynamic Head takes a pyramid in which each '
                    f'level is half the one before it, rounded up'
                )
        # the convolutions read pixels as rows; copied once for the four that read a level, if at all
        feats = [feat.contiguous(memory_format=torch.channels_last) for feat in feats]
        outs = []
        for level, feat in enumerate(feats):
            offset, mask = self.offset_conv(feat).split((2 * TAPS, TAPS), dim=1)  # (B, 18, H, W), (B, 9, H, W)
            mask = mask.sigmoid()
            branches = [self.mid(feat, offset, mask)]
            if level > 0:
                branches.append(self.low(feats[level - 1], offset, mask))
            if level < len(feats) - 1:
                coarse = self.high(feats[level + 1], *self._for_coarser(offset, mask, sizes[level + 1]))
                # enlarged after the convolution, not before: the public code's order
                branches.append(F.interpolate(coarse, size=sizes[level], mode='bilinear', align_corners=True))
            outs.append(self._fuse(branches))
        return outs

    def _for_coarser(self, offset: Tensor, mask: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Offsets ``(B, 18, H, W)`` and masks ``(B, 9, H, W)`` of a level as the coarser one of ``size`` gets them."""
        if self.offset_mode == 'legacy':
            height, width = size
            # the first numbers of each image, in the smaller shape: (B, 18, H', W'), (B, 9, H', W')
            offset = offset.flatten(1)[:, : 2 * TAPS * height * width].unflatten(1, (2 * TAPS, height, width))
            mask = mask.flatten(1)[:, : TAPS * height * width].unflatten(1, (TAPS, height, width))
            return offset, mask
        ratio = offset.new_tensor([size[0] / offset.shape[2], size[1] / offset.shape[3]])  # offsets are (y, x) pairs
        offset = F.interpolate(offset, size=size, mode='bilinear', align_corners=False)
        mask = F.interpolate(mask, size=size, mode='bilinear', align_corners=False)
        return offset * ratio.repeat(TAPS)[:, None, None], mask

    def _fuse(self, branches: list[Tensor]) -> Tensor:
        """Weighted mean of maps ``(B, C, H, W)``, then the task-aware attention."""
        means = torch.stack([branch.mean((2, 3)) for branch in branches])  # (N, B, C)
        weights = F.hardsigmoid(F.relu(self.scale_attn(means))) / len(branches)  # (N, B, 1)
        scales = weights[..., None, None]  # (N, B, 1, 1, 1)
        fused = branches[0] * scales[0]
        for branch, scale in zip(branches[1:], scales[1:], strict=True):
            fused = torch.addcmul(fused, branch, scale)
        # the mean over positions commutes with the weighted mean over branches: no second pass over the map
        return self.task_attn(fused, (means * weights).sum(0))
