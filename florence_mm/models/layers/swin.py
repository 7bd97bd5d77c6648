"""The layers of Swin and CoSwin, for maps of two axes (images) and three (clips).

The block is window attention and an MLP. Patch embedding and merging are Swin's, or CoSwin's convolutions instead
(Florence, section 2.3; layers as in CvT, arXiv 2103.15808). Keys are those of Swin's ``swin_transformer.py``, and for
convolutions and layer scale of CoSwin's ``coswin.py`` (MedImageInsight).

Shapes: ``B`` batch, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens of the map, the product of ``S``,
``C`` channels, ``W`` windows, ``N`` tokens per window, ``h`` heads.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.ops.attention import window_attention
from florence_mm.ops.inference import (
    WeightsSnapshot,
    add_mlp,
    convolve,
    fast_path_allowed,
    is_plain,
    is_recorded,
    is_untouched,
)
from florence_mm.ops.recomputed import norm_linear, norm_mlp, recomputing_allowed, trained_linear
from florence_mm.ops.windows import (
    WindowPlan,
    fit_window,
    from_windows,
    relative_position_bias,
    to_windows,
    window_plan,
)

from .mlp import DropPath, Mlp

_CACHED_ELEMENTS = 4_000_000  # of the largest bias that is cached (16 MB in float32)
_QKV_ELEMENTS = 1_000_000  # of queries, keys and values computed at a time in evaluation (4 MB in float32)
_CACHED_SIZES = 2  # map sizes per block whose bias is cached


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with relative position bias.

    Args:
        embed_dims: ``C``.
        num_heads: ``h``; divides ``embed_dims``.
        window_size: tokens of a window along each axis, which the bias table is made for.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate: dropout of attention weights.
        bias_by_slot: how a smaller window reads the table, see :func:`~florence_mm.ops.windows.relative_position_bias`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, ...],
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        bias_by_slot: bool = False,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'{embed_dims} channels do not divide into {num_heads} heads')
        self.num_heads = num_heads
        self.window_size = tuple(window_size)
        self.attn_drop_rate = attn_drop_rate
        self.bias_by_slot = bias_by_slot
        rows = math.prod(2 * w - 1 for w in self.window_size)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self._cache: OrderedDict[tuple, tuple] = OrderedDict()

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """Attend within the windows of ``plan``, ``(B, L, C)`` to ``(B, L, C)``."""
        # sizes come last, as comparing free ones would fix them
        large = not self.training and fast_path_allowed(x) and 3 * x.numel() > _QKV_ELEMENTS
        in_chunks = large and is_plain(self.qkv, self.proj) and fast_path_allowed(x, self.qkv.weight)
        if in_chunks and len(x) > 1:
            step = max(1, len(x) * _QKV_ELEMENTS // (3 * x.numel()))
            out = x.new_empty(x.shape)
            for part, target in zip(x.split(step), out.split(step), strict=True):
                target.copy_(self(part, plan))
            return out
        x = to_windows(x, plan)  # (B, W * N, C)
        if not in_chunks:
            return self.attend(self.qkv(x), plan)
        return from_windows(self._attend_in_chunks(x[0], *self._bias(plan, x)).unsqueeze(0), plan)

    def attend(self, qkv: Tensor, plan: WindowPlan) -> Tensor:
        """Attend with queries, keys and values in window order ``(B, W * N, 3 C)``; returns ``(B, L, C)``."""
        bias, mask = self._bias(plan, qkv)
        x = window_attention(qkv, bias, self.num_heads, mask, self.attn_drop_rate if self.training else 0.0)
        x = trained_linear(x, self.proj) if self.training and recomputing_allowed(x, self, self.proj) else self.proj(x)
        return from_windows(x, plan)

    def _attend_in_chunks(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in one large map ``(W * N, C)``, some windows at a time so that their qkv stay in the CPU's cache."""
        tokens, channels = bias.shape[-1], x.shape[-1]
        step = max(1, _QKV_ELEMENTS // (3 * channels * tokens))  # windows
        out = torch.empty_like(x)
        for i, (part, target) in enumerate(zip(x.split(step * tokens), out.split(step * tokens), strict=True)):
            own = slice(i * step, (i + 1) * step)
            rows = window_attention(
                self.qkv(part).unsqueeze(0),  # (1, w * N, 3 C)
                bias if bias.ndim == 3 else bias[own],
                self.num_heads,
                None if mask is None else mask[own],
            )
            torch.addmm(self.proj.bias, rows[0], self.proj.weight.t(), out=target)
        return out

    def _bias(self, plan: WindowPlan, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return position bias and mask; in evaluation on the CPU their cached sum and None, unless it is large.

        On other devices, checking the table for changes would wait for the device longer than computing the bias.
        """
        table, device = self.relative_position_bias_table, x.device.type
        size = self.num_heads * math.prod(plan.window_size) ** 2 * (1 if plan.mask is None else plan.num_windows)
        keeps = not (torch.is_grad_enabled() or self.training or is_recorded())
        if not keeps or table.device.type != 'cpu' or size > _CACHED_ELEMENTS:
            return self._position_bias(plan), plan.mask
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        key = (plan.size, plan.window_size, plan.shift_size, dtype)
        snapshot, bias = self._cache.get(key, (None, None))
        if snapshot is None or not snapshot.matches([table]):
            bias = self._position_bias(plan)
            if plan.mask is not None:
                bias = bias + plan.mask.unsqueeze(1)  # (h, N, N) + (W, 1, N, N)
            bias = bias.to(dtype)
            if type(bias) is Tensor:  # not one of a tracer
                self._cache[key] = (WeightsSnapshot([table]), bias)
        if key in self._cache:
            self._cache.move_to_end(key)
        while len(self._cache) > _CACHED_SIZES:
            self._cache.popitem(last=False)
        return bias, None

    def _position_bias(self, plan: WindowPlan) -> Tensor:
        table = self.relative_position_bias_table
        return relative_position_bias(table, plan.window_size, self.window_size, self.bias_by_slot)

    def train(self, mode: bool = True) -> 'WindowAttention':
        """Set the mode; also clear the cached biases, which training does not use."""
        self._cache.clear()
        return super().train(mode)


class WindowBlock(nn.Module):
    """Pre-norm block: window attention, then MLP, each with a residual (Swin, figure 3b).

    Args:
        embed_dims: ``C``.
        num_heads: ``h``.
        window_size: tokens of a window along each axis of the map.
        shift_size: tokens by which windows are shifted along each axis; all 0 for a block without shift.
        mlp_ratio: hidden width of the MLP in multiples of ``C``.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth, see :class:`DropPath`.
        layer_scale_init_value: initial value of ``gamma``, which scales both branches (CoSwin); ``None``: no gamma.
        pad_small_map: pad maps smaller than the window, as mmdet does, instead of shrinking the window.
        bias_by_slot: see :class:`WindowAttention`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, ...],
        shift_size: tuple[int, ...],
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = None,
        pad_small_map: bool = False,
        bias_by_slot: bool = False,
    ) -> None:
        super().__init__()
        self.shift_size = tuple(shift_size)
        self.pad_small_map = pad_small_map
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = WindowAttention(embed_dims, num_heads, window_size, qkv_bias, attn_drop_rate, bias_by_slot)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        self.gamma = None
        if layer_scale_init_value is not None:
            self.gamma = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """Apply the block to tokens ``(B, L, C)`` of a map of ``size``; the shape stays."""
        window, shift = self.attn.window_size, self.shift_size
        if torch.jit.is_tracing():  # sizes are tensors, and a trace is of one size
            size = tuple(int(s) for s in size)
        if not self.pad_small_map:
            window, shift = fit_window(size, window, shift)
        plan = window_plan(size, window, shift, x.device)
        recomputing = self._recomputes(x)
        if recomputing:
            branch = self.attn.attend(norm_linear(x, self.norm1, self.attn.qkv.weight, self.attn.qkv.bias, plan), plan)
        else:
            branch = self.attn(self.norm1(x), plan)
        if self._works_in_place():
            x = branch.add_(x)
            return add_mlp(x, self.norm2(x), self.mlp.fc1, self.mlp.fc2)
        x = x + self._scaled(branch)
        if recomputing:
            return x + self._scaled(norm_mlp(x, self.norm2, self.mlp.fc1, self.mlp.fc2))
        return x + self._scaled(self.mlp(self.norm2(x)))

    def _works_in_place(self) -> bool:
        """Whether the attention's output may be written to, which hooks and others' layers could still hold."""
        if self.gamma is not None or self.training or is_recorded():
            return False
        attn, mlp = self.attn, self.mlp
        ours = type(attn) is WindowAttention and type(mlp) is Mlp and type(self.norm2) is nn.LayerNorm
        return ours and is_untouched(attn, mlp, self.norm2, self.drop_path) and is_plain(attn.proj, mlp.fc1, mlp.fc2)

    def _recomputes(self, x: Tensor) -> bool:
        """Whether the block trains by :mod:`florence_mm.ops.recomputed`, which reads the weights of its layers."""
        attn, mlp = self.attn, self.mlp
        if not self.training or type(attn) is not WindowAttention or type(mlp) is not Mlp:
            return False
        return recomputing_allowed(x, self, self.norm1, self.norm2, attn.qkv, attn.proj, mlp.fc1, mlp.fc2)

    def _scaled(self, branch: Tensor) -> Tensor:
        return self.drop_path(branch if self.gamma is None else self.gamma * branch)


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
