"""The block of Dynamic Head (arXiv 2106.08322) as published: scale-, spatial- and task-aware attention over a pyramid.

Details follow DynamicHead ``dyhead/dyhead.py`` and ``dyhead/dyrelu.py``; the three attentions are equations 2 to 6 of
the paper. Shapes: ``B`` images, ``C`` channels, ``H, W`` size of a level, ``N`` branches merged in a level (three, two
at the ends of the pyramid, one if there is a single level).
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.ops.deform_conv import modulated_deform_conv2d

TAPS = 9  # of a 3x3 kernel
OFFSET_MODES = ('resized', 'legacy')


class DeformConvNorm(nn.Module):
    """A 3x3 modulated deformable convolution with bias, then group normalisation.

    The norm does not cancel the bias, as each of its groups has several channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of 16.
        stride: stride of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        # channels last: the layout in which the convolution multiplies the weight
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, 3, 3).contiguous(memory_format=torch.channels_last)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = nn.GroupNorm(16, out_channels)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C, P, Q)``, with offset ``(B, 18, P, Q)`` and mask ``(B, 9, P, Q)``."""
        return self.norm(modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, self.stride, padding=1))


class DyReLU(nn.Module):
    """Task-aware attention: per channel the maximum of two linear functions, whose coefficients depend on the image.

    Args:
        channels: ``C``, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Compute ``max(a1 * x + b1, a2 * x + b2)`` with a1, b1, a2 and b2 predicted from ``context``.

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
    """Block of Dynamic Head: merges each level with its two neighbours by deformable convolutions.

    For each level, ``mid`` convolves the level, ``low`` (stride 2) the next finer one, and ``high`` the next coarser
    one, whose result is upsampled. Each result is weighted by a scalar computed from its mean (scale-aware attention);
    the average of the weighted results goes through :class:`DyReLU` (task-aware attention). A 3x3 convolution of the
    level predicts the offsets and masks of all three (spatial-aware attention). All levels share the parameters.

    The output of ``high`` has the coarser level's size, but the offsets have the level's own, larger size. The public
    code passes them unchanged, and its kernel reads the first numbers of the flat memory as if they had the smaller
    shape (DynamicHead issue 25), so that a position gets offsets that were predicted for other positions and partly for
    other taps. ``offset_mode`` chooses:

    - ``'legacy'`` reads the same numbers as the public code. Public weights were trained with it and need it.
    - ``'resized'`` interpolates offsets and masks to the coarser size and multiplies the offsets by the ratio of the
      sizes, so that a position gets what was predicted for it, in pixels of the coarser map. Use it unless you load
      public weights. ``mid`` and ``low`` are the same in both modes, as their outputs have the size of the offsets.

    Parameters: ``offset_conv``, ``{high,mid,low}.{weight,bias,norm}``, ``scale_attn``, ``task_attn.{fc1,fc2}``.
    Initialisation is that of the public code: convolutions normal with standard deviation 0.01 and zero bias,
    ``offset_conv`` and the linear layers of ``task_attn`` as PyTorch initialises them.

    Args:
        channels: ``C``, a multiple of 16.
        in_channels: channels of the input; ``None``: ``channels``.
        offset_mode: ``'resized'`` or ``'legacy'``.

    Raises:
        ValueError: ``offset_mode`` is unknown, or ``channels`` is not a multiple of 16.
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
        """Apply the block to a pyramid.

        Args:
            feats: maps ``(B, C_in, H_l, W_l)``, finest first, each half the size of the previous one, rounded up.

        Returns:
            maps ``(B, C, H_l, W_l)``.

        Raises:
            ValueError: a level is not half the size of the previous one.
        """
        sizes = [feat.shape[2:] for feat in feats]
        for fine, coarse in zip(sizes, sizes[1:], strict=False):
            if any((f + 1) // 2 != c for f, c in zip(fine, coarse, strict=True)):
                raise ValueError(
                    f'levels of sizes {[tuple(size) for size in sizes]}; Dynamic Head takes a pyramid in which each '
                    f'level is half the one before it, rounded up'
                )
        # the convolutions need channels last; one copy, if any, serves the four convolutions that read a level
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
                # upsampled after the convolution, as in the public code
                branches.append(F.interpolate(coarse, size=sizes[level], mode='bilinear', align_corners=True))
            outs.append(self._fuse(branches))
        return outs

    def _for_coarser(self, offset: Tensor, mask: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Convert offset ``(B, 18, H, W)`` and mask ``(B, 9, H, W)`` of a level to the ``size`` of the coarser one."""
        if self.offset_mode == 'legacy':
            height, width = size
            # the first numbers of each image, in the smaller shape: (B, 18, H', W'), (B, 9, H', W')
            offset = offset.flatten(1)[:, : 2 * TAPS * height * width].unflatten(1, (2 * TAPS, height, width))
            mask = mask.flatten(1)[:, : TAPS * height * width].unflatten(1, (TAPS, height, width))
            return offset, mask
        # offsets are (y, x) pairs
        ratio = torch.tensor([size[0] / offset.shape[2], size[1] / offset.shape[3]], dtype=offset.dtype)
        ratio = ratio.to(offset.device, non_blocking=True)
        offset = F.interpolate(offset, size=size, mode='bilinear', align_corners=False)
        mask = F.interpolate(mask, size=size, mode='bilinear', align_corners=False)
        return offset * ratio.repeat(TAPS)[:, None, None], mask

    def _fuse(self, branches: list[Tensor]) -> Tensor:
        """Apply scale- and task-aware attention: the weighted mean of maps ``(B, C, H, W)``, then :class:`DyReLU`."""
        means = torch.stack([branch.mean((2, 3)) for branch in branches])  # (N, B, C)
        weights = F.hardsigmoid(F.relu(self.scale_attn(means))) / len(branches)  # (N, B, 1)
        scales = weights[..., None, None]  # (N, B, 1, 1, 1)
        fused = branches[0] * scales[0]
        for branch, scale in zip(branches[1:], scales[1:], strict=True):
            fused = torch.addcmul(fused, branch, scale)
        # the mean over positions commutes with the weighted mean over branches, which saves a pass over the map
        return self.task_attn(fused, (means * weights).sum(0))


def run_blocks(blocks: Iterable[DyHeadBlock], feats: Sequence[Tensor], with_cp: bool = False) -> list[Tensor]:
    """Apply blocks to a pyramid, one after the other.

    Args:
        blocks: the blocks.
        feats: maps ``(B, C_in, H_l, W_l)``, finest first.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.

    Returns:
        maps ``(B, C, H_l, W_l)``.
    """
    feats = list(feats)
    for block in blocks:
        recompute = with_cp and torch.is_grad_enabled()
        feats = checkpoint(block, feats, use_reentrant=False) if recompute else block(feats)
    return feats
