"""The block of DaViT (arXiv 2204.03645): attention within windows of tokens, then between channels.

Before each attention and each MLP a depthwise convolution tells positions. Layers and their order are those of the
public code of DaViT and Florence-2.

Shapes: ``B`` batch, ``L`` tokens of a map, ``C`` channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.ops.dual_attention import (
    EdgePlan,
    channel_attention,
    edge_plan,
    edge_window_attention,
    whole_window_attention,
)
from florence_mm.ops.inference import add_mlp, convolve, fast_path_allowed, is_plain, is_recorded, is_untouched
from florence_mm.ops.linear import product
from florence_mm.ops.recomputed import norm_linear, norm_mlp, recomputing_allowed
from florence_mm.ops.windows import from_windows, to_map, to_tokens, to_windows, window_plan

from .mlp import DropPath, Mlp


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
            x = whole_window_attention(self.qkv(to_windows(x, plan)), plan.num_windows, self.num_heads)
            return from_windows(self.proj(x), plan)
        if not len(x):
            return x  # empty: there is nothing to attend to
        plan = edge_plan(len(x), size, self.window_size, x.device)
        rows = to_windows(x.reshape(1, -1, x.shape[-1]), plan)  # (1, B * L, C)
        return self._attend(_linear(rows, self.qkv), plan).view(x.shape)

    def after_norm(self, x: Tensor, size: tuple[int, int], norm: nn.LayerNorm) -> Tensor:
        """Compute ``self(norm(x), size)`` in training by :mod:`florence_mm.ops.recomputed`."""
        plan = edge_plan(len(x), size, self.window_size, x.device)
        rows = x.reshape(1, -1, x.shape[-1])  # (1, B * L, C)
        return self._attend(norm_linear(rows, norm, self.qkv.weight, self.qkv.bias, plan), plan).view(x.shape)

    def _attend(self, qkv: Tensor, plan: EdgePlan) -> Tensor:
        """Attend with queries, keys and values in window order ``(1, B * L, 3 C)``; returns ``(1, B * L, C)``."""
        qkv, empty = qkv[0], qkv.new_zeros(1, qkv.shape[-1] // 3)
        zeros = self.qkv.bias if is_plain(self.qkv) else self.qkv(empty)[0]
        rows = edge_window_attention(qkv, zeros.to(qkv.dtype), plan.groups, self.num_heads)
        return from_windows(_linear(rows[None], self.proj), plan)


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
        return self._attend(_linear(x, self.qkv))

    def after_norm(self, x: Tensor, size: tuple[int, int], norm: nn.LayerNorm) -> Tensor:
        """Compute ``self(norm(x), size)`` in training by :mod:`florence_mm.ops.recomputed`."""
        return self._attend(norm_linear(x, norm, self.qkv.weight, self.qkv.bias))

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend with queries, keys and values ``(B, L, 3 C)``; returns ``(B, L, C)``."""
        count = qkv.shape[1] if self.channel_scale == 'tokens' else qkv.shape[2] // (3 * self.num_groups)
        return _linear(channel_attention(qkv, self.num_groups, count**-0.5), self.proj)


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
        recomputing = self._recomputes(x)
        branch = self.attn.after_norm(x, size, self.norm1) if recomputing else self.attn(self.norm1(x), size)
        x = x + self.drop_path(branch)
        x = _with_position(x, size, self.conv2)
        if recomputing:
            return x + self.drop_path(norm_mlp(x, self.norm2, self.mlp.fc1, self.mlp.fc2))
        if self._works_in_place():
            return add_mlp(x, self.norm2(x), self.mlp.fc1, self.mlp.fc2)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _works_in_place(self) -> bool:
        """Whether the convolution's sum may be written to, as nobody has touched what comes after it."""
        if self.training or is_recorded() or type(self.mlp) is not Mlp or type(self.norm2) is not nn.LayerNorm:
            return False
        return is_untouched(self.mlp, self.norm2, self.drop_path) and is_plain(self.mlp.fc1, self.mlp.fc2)

    def _recomputes(self, x: Tensor) -> bool:
        """Whether the block trains by :mod:`florence_mm.ops.recomputed`, which reads the weights of its layers."""
        attn, mlp = self.attn, self.mlp
        if not self.training or not len(x) or type(mlp) is not Mlp:
            return False
        if type(attn) not in (PaddedWindowAttention, ChannelAttention):
            return False
        return recomputing_allowed(x, self, self.norm1, self.norm2, attn.qkv, attn.proj, mlp.fc1, mlp.fc2)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer, in inference on a CPU by the library that is faster there."""
    if fast_path_allowed(x) and is_plain(layer) and fast_path_allowed(x, layer.weight):
        return product(x, layer.weight, layer.bias)
    return layer(x)


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
        if self.proj.kernel_size[0] == 2 and (is_recorded() or size[0] % 2 or size[1] % 2):
            x = F.pad(x, (0, 1, 0, 1))  # the convolution does not read what is beyond an even size
        x = convolve(self.proj, x)
        return to_tokens(x), tuple(x.shape[2:])
