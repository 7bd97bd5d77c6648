"""DaViT, the image backbone of Florence-2 (arXiv 2204.03645, 2311.06242).

Blocks attend in turn within windows of tokens and between channels, where all tokens take part, so that a window needs
no shift. A depthwise convolution before each attention and each MLP tells positions; there is no table of positions.
Layers are those of the public code of DaViT and Florence-2; names of stages are CoSwin's.

Shapes: ``B`` batch, ``H, W`` sizes of a map, ``L = H W`` tokens, ``C`` channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.models.layers.mlp import DropPath, Mlp
from florence_mm.models.layers.swin import ConvEmbed, to_map, to_tokens
from florence_mm.ops.dual_attention import channel_attention, edge_plan, edge_window_attention, whole_window_attention
from florence_mm.ops.inference import add_mlp, convolve, is_plain, is_recorded, is_untouched
from florence_mm.ops.windows import fix_sizes, from_windows, to_windows, window_plan
from florence_mm.registry import MODELS

from .arch import DAVIT_ARCHITECTURES, drop_path_rates, resolve_arch
from .stages import MIN_SIDE, Pyramid, Stage

CHANNEL_SCALES = ('tokens', 'channels')
OUT_NORMS = ('map', 'pooled')
_OPTIONAL = ('num_groups', 'patch_size', 'window_size', 'mlp_ratio')


class PaddedWindowAttention(nn.Module):
    """Multi-head self-attention within windows without shift and bias table, in which padded tokens take part.

    Args:
        embed_dims: ``C``.
        num_heads: heads.
        window_size: side of a window in tokens.
    """

    def __init__(self, embed_dims: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend within the windows of a map of ``size``, ``(B, L, C)`` to ``(B, L, C)``."""
        if is_recorded():
            window = (self.window_size, self.window_size)
            plan = window_plan(size, window, (0, 0), x.device)
            x = whole_window_attention(self.qkv(to_windows(x, plan)), self.window_size**2, self.num_heads)
            return from_windows(self.proj(x), plan)
        if not len(x):
            return x  # empty: there is nothing to attend to
        plan = edge_plan(len(x), size, self.window_size, x.device)
        rows = to_windows(x.reshape(1, -1, x.shape[-1]), plan)[0]  # (B * L, C)
        qkv = self.qkv(rows)
        zeros = self.qkv.bias if is_plain(self.qkv) else self.qkv(rows.new_zeros(1, rows.shape[-1]))[0]
        rows = self.proj(edge_window_attention(qkv, zeros.to(qkv.dtype), plan.groups, self.num_heads))
        return from_windows(rows[None], plan).view(x.shape)


class ChannelAttention(nn.Module):
    """Self-attention between the channels of each group.

    Args:
        embed_dims: ``C``.
        num_groups: groups.
        scale: what the scores are divided by the square root of: ``'tokens'``, their number (Florence-2), or
            ``'channels'``, those of a group (DaViT).
    """

    def __init__(self, embed_dims: int, num_groups: int, scale: str = 'tokens') -> None:
        super().__init__()
        self.num_groups, self.channel_scale = num_groups, scale
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend between channels of a map of ``size``, ``(B, L, C)`` to ``(B, L, C)``."""
        count = x.shape[1] if self.channel_scale == 'tokens' else x.shape[2] // self.num_groups
        return self.proj(channel_attention(self.qkv(x), self.num_groups, count**-0.5))


class ConvAttentionBlock(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, MLP, each with a residual.

    Args:
        embed_dims: ``C``.
        attn: the attention, from tokens ``(B, L, C)`` and the size of their map to tokens.
        mlp_ratio: hidden width of the MLP in multiples of ``C``.
        drop_path_rate: stochastic depth of attention and MLP, see :class:`DropPath`.
    """

    def __init__(self, embed_dims: int, attn: nn.Module, mlp_ratio: float, drop_path_rate: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = attn
        self.conv2 = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Apply the block to tokens ``(B, L, C)`` of a map of ``size``; the shape stays."""
        x = _with_position(x, size, self.conv1)
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        x = _with_position(x, size, self.conv2)
        if self._works_in_place():
            return add_mlp(x, self.norm2(x), self.mlp.fc1, self.mlp.fc2)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _works_in_place(self) -> bool:
        """Whether the convolution's sum may be written to."""
        if self.training or is_recorded():
            return False
        mlp = self.mlp
        ours = type(mlp) is Mlp and type(self.norm2) is nn.LayerNorm
        return ours and is_untouched(mlp, self.norm2, self.drop_path) and is_plain(mlp.fc1, mlp.fc2)


def _with_position(x: Tensor, size: tuple[int, int], conv: nn.Conv2d) -> Tensor:
    """Add a depthwise convolution of the map to its tokens ``(B, L, C)`` (conditional position encoding)."""
    return x + to_tokens(conv(to_map(x, size)))


class DualBlock(nn.Module):
    """Two blocks: window attention, then channel attention.

    Args:
        embed_dims: ``C``.
        num_heads: heads of the window attention.
        num_groups: groups of the channel attention.
        window_size: side of a window in tokens.
        mlp_ratio: hidden width of the MLPs in multiples of ``C``.
        drop_path_rates: stochastic depth of the two blocks.
        channel_scale: see :class:`ChannelAttention`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_groups: int,
        window_size: int,
        mlp_ratio: float = 4.0,
        drop_path_rates: Sequence[float] = (0.0, 0.0),
        channel_scale: str = 'tokens',
    ) -> None:
        super().__init__()
        spatial, channel = drop_path_rates
        attn = PaddedWindowAttention(embed_dims, num_heads, window_size)
        self.spatial_block = ConvAttentionBlock(embed_dims, attn, mlp_ratio, spatial)
        attn = ChannelAttention(embed_dims, num_groups, channel_scale)
        self.channel_block = ConvAttentionBlock(embed_dims, attn, mlp_ratio, channel)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Apply both blocks to tokens ``(B, L, C)`` of a map of ``size``; the shape stays."""
        if torch.jit.is_tracing():  # sizes are tensors, and a trace is of one size
            size = tuple(int(s) for s in size)
        return self.channel_block(self.spatial_block(x, size), size)


class NormConvEmbed(nn.Module):
    """Downsampling of DaViT: LayerNorm, then a convolution of stride 2; keys ``norm``, ``proj``.

    Args:
        in_channels: channels of the input.
        embed_dims: channels of the output.
        kernel_size: side of the kernel: an odd one is padded with zeros on all sides; 2 at the end of odd sizes alone.
    """

    def __init__(self, in_channels: int, embed_dims: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        padding = kernel_size // 2 if kernel_size % 2 else 0
        self.proj = nn.Conv2d(in_channels, embed_dims, kernel_size, 2, padding)

    def forward(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Merge tokens ``(B, L, C)`` of a map of ``size``; returns tokens and the new size."""
        x = to_map(self.norm(x), size)
        if self.proj.kernel_size[0] == 2 and (size[0] % 2 or size[1] % 2):
            x = F.pad(x, (0, size[1] % 2, 0, size[0] % 2))
        x = convolve(self.proj, x)
        return to_tokens(x), tuple(x.shape[2:])


@MODELS.register_module()
class DaViT(Pyramid):
    """Dual attention vision transformer; returns a pyramid of feature maps.

    The defaults are those of Florence-2's image tower, whose map is not normalised. DaViT's classifiers of ImageNet
    need ``window_size=7, merge_kernel=2, channel_scale='channels', out_norm='pooled'``.

    Args:
        arch: a preset (``micro``, ``tiny``, ``small``, ``base``, ``large``) or a dict with ``depths`` and ``num_heads``
            and ``embed_dims``, each a list of one number a stage, and optionally ``num_groups`` (default: as many as
            heads), ``patch_size``, ``window_size`` and ``mlp_ratio``.
        in_channels: channels of the input.
        patch_size: stride of the stem in pixels; default: that of the arch, or 4. The convolution's kernel has
            ``2 * patch_size - 1`` pixels.
        window_size: side of a window in tokens; default: that of the arch, or 12.
        merge_kernel: side of the convolutions between stages: 3, or 2 for patches that do not overlap.
        channel_scale: scores between channels are divided by the square root of the number of ``'tokens'`` or of
            ``'channels'`` in a group.
        drop_rate: dropout after the stem.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: only the last.
        out_norm: ``'map'``: LayerNorm of each returned map, named as in :class:`CoSwin`, for detectors; ``'pooled'``:
            the mean of the last map is returned, normalised; ``None``: maps as they are.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Raises:
        ValueError: ``arch`` is unknown, incomplete or does not divide, or an option has no such value.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        in_channels: int = 3,
        patch_size: int | None = None,
        window_size: int | None = None,
        merge_kernel: int = 3,
        channel_scale: str = 'tokens',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = _check(resolve_arch(arch, DAVIT_ARCHITECTURES, _OPTIONAL))
        last = len(arch['depths']) - 1
        for name, value, known in (
            ('merge_kernel', merge_kernel, (2, 3)),
            ('channel_scale', channel_scale, CHANNEL_SCALES),
            ('out_norm', out_norm, (None, *OUT_NORMS)),
        ):
            if value not in known:
                raise ValueError(f'{name} is {value!r}; give one of {", ".join(map(repr, known))}')
        if out_norm == 'pooled' and out_indices is not None and tuple(out_indices) != (last,):
            raise ValueError(
                f"out_norm='pooled' gives one vector of the last stage, and out_indices is {tuple(out_indices)}; leave "
                f"out_indices out, or give out_norm='map'"
            )
        widths, patch_size = arch['embed_dims'], patch_size or arch.get('patch_size', 4)
        rates = iter(drop_path_rates(drop_path_rate, [2] * sum(arch['depths'])))
        stages = []
        for i, (width, depth) in enumerate(zip(widths, arch['depths'], strict=True)):
            blocks = [
                DualBlock(
                    width,
                    arch['num_heads'][i],
                    arch['num_groups'][i],
                    window_size or arch.get('window_size', 12),
                    arch.get('mlp_ratio', 4.0),
                    next(rates),
                    channel_scale,
                )
                for _ in range(depth)
            ]
            stages.append(Stage(blocks, None if i == last else NormConvEmbed(width, widths[i + 1], merge_kernel)))
        stem = ConvEmbed(
            in_channels, widths[0], (2 * patch_size - 1,) * 2, (patch_size,) * 2, padding=(patch_size - 1,) * 2
        )
        norms = out_norm is not None
        super().__init__(
            stem, stages, widths, patch_size, drop_rate, out_indices, with_cp, frozen_stages, init_cfg, norms
        )
        self.embed_dims, self.num_heads, self.num_groups = (arch[k] for k in ('embed_dims', 'num_heads', 'num_groups'))
        self.window_size = window_size or arch.get('window_size', 12)
        self.in_channels, self.out_norm, self.channel_scale = in_channels, out_norm, channel_scale
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, H, W)``, H and W at least 32.

        Returns:
            a map ``(B, C_i, H_i, W_i)`` for each stage in ``out_indices``, in the order of the stages; with
            ``out_norm='pooled'`` one feature ``(B, C)``.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f'DaViT got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) '
                f'with H and W at least {MIN_SIDE}'
            )
        fix_sizes(x.shape[2:])
        x, size = self.patch_embed(x)  # (B, L, C)
        x = self.pos_drop(x)
        if self.out_norm != 'pooled':
            return tuple(self.run_stages(x, size))
        (last,) = self.run_stages(x, size, normalised=False)
        return (self.norm(last.mean((2, 3))),)


def _check(arch: dict[str, Any]) -> dict[str, Any]:
    """Return sizes with ``num_groups``, if each stage has its own width and heads and groups divide it."""
    arch = {'num_groups': arch['num_heads'], **arch}
    if isinstance(arch['embed_dims'], int):
        raise ValueError(
            f'embed_dims of DaViT is {arch["embed_dims"]}; give a list of the channels of each of the '
            f'{len(arch["depths"])} stages'
        )
    for width, heads, groups in zip(arch['embed_dims'], arch['num_heads'], arch['num_groups'], strict=True):
        if width % heads or width % groups:
            raise ValueError(
                f'{width} channels do not divide into {heads} heads and {groups} groups; change embed_dims, num_heads '
                f'or num_groups of arch'
            )
    return arch
