"""The Swin block: window attention and MLP, one code for maps of two axes (images) and three (clips).

Public keys: Swin's ``swin_transformer.py``; layer scale as in CoSwin's ``coswin.py`` (MedImageInsight).

Shapes: ``B`` batch, ``L`` tokens of the map, ``C`` channels, ``W`` windows, ``N`` tokens a window, ``h`` heads.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.ops.mlp import add_mlp, fast_path_allowed
from florence_mm.ops.position import relative_position_bias
from florence_mm.ops.window_attention import window_attention
from florence_mm.ops.windows import WindowPlan, fit_window, from_windows, to_windows, window_plan
from florence_mm.utils.weights_snapshot import WeightsSnapshot

_CACHED_ELEMENTS = 4_000_000  # largest bias kept between calls (16 MB in float32)
_QKV_ELEMENTS = 1_000_000  # of queries, keys and values at a time in evaluation: 4 MB in float32
_CACHED_SIZES = 2  # map sizes a block keeps its bias for


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with relative position bias.

    Args:
        embed_dims: ``C``.
        num_heads: ``h``, divides ``embed_dims``.
        window_size: tokens of a window along each axis; the bias table is made for it.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate: probability that an attention weight is dropped in training.
        bias_by_slot: how a smaller window reads the table (:func:`~florence_mm.ops.position.relative_position_bias`).
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
        """``(B, L, C)`` to ``(B, L, C)``."""
        in_pieces = 3 * x.numel() > _QKV_ELEMENTS and not self.training and fast_path_allowed(x, self.qkv.weight)
        if in_pieces and len(x) > 1:
            step = max(1, len(x) * _QKV_ELEMENTS // (3 * x.numel()))
            out = x.new_empty(x.shape)
            for part, target in zip(x.split(step), out.split(step), strict=True):
                target.copy_(self(part, plan))
            return out
        x = to_windows(x, plan)  # (B, W * N, C)
        bias, mask = self._bias(plan, x)
        if in_pieces:
            x = self._attend_in_pieces(x[0], bias, mask).unsqueeze(0)
        else:
            dropout_p = self.attn_drop_rate if self.training else 0.0
            x = self.proj(window_attention(self.qkv(x), bias, self.num_heads, mask, dropout_p))
        return from_windows(x, plan)

    def _attend_in_pieces(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """``(W * N, C)`` of one large map, some windows at a time: their queries, keys and values stay in the cache."""
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
        """Position bias and mask; in evaluation on the CPU their sum, which is kept between calls, if it is not large.

        Elsewhere a look at the table would wait for the device, which takes longer than to compute the bias.
        """
        table, device = self.relative_position_bias_table, x.device.type
        size = self.num_heads * math.prod(plan.window_size) ** 2 * (1 if plan.mask is None else plan.num_windows)
        keeps = not (torch.is_grad_enabled() or self.training or torch.compiler.is_compiling())
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
            if type(bias) is Tensor:  # not a tracer's
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
        """As any module's; also drops the kept biases, which training does not need."""
        self._cache.clear()
        return super().train(mode)


class Mlp(nn.Module):
    """Two linear layers with GELU between; only their parameters live here (:func:`add_mlp` does the work)."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` to ``(..., C)``."""
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Leaves a whole branch out for a random part of the batch (arXiv 1603.09382).

    Args:
        rate: probability that a sample's branch is left out in training; what stays is scaled by ``1 / (1 - rate)``.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` to ``(B, ...)``."""
        if not self.rate or not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f'rate={self.rate:.3f}'


class WindowBlock(nn.Module):
    """Pre-norm block: window attention, then MLP, each added to the stream (Swin, figure 3b).

    Args:
        embed_dims: ``C``.
        num_heads: ``h``.
        window_size: tokens of a window along each axis of the map.
        shift_size: how far the windows are shifted along each axis; all 0 for a block without shift.
        mlp_ratio: width of the MLP's hidden layer over ``C``.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: probability that a branch is left out for a sample in training.
        layer_scale_init_value: start of one ``gamma`` that scales both branches (CoSwin's code); ``None``: no gamma.
        pad_small_map: pad a map smaller than the window instead of shrinking the window (mmdet's convention).
        bias_by_slot: as :class:`WindowAttention` has it.
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
        """``(B, L, C)`` tokens of a map of ``size`` to the same shape."""
        window, shift = self.attn.window_size, self.shift_size
        if not self.pad_small_map:
            window, shift = fit_window(size, window, shift)
        plan = window_plan(size, window, shift, x.device)
        branch = self.attn(self.norm1(x), plan)
        if self.gamma is None and not self.training:
            x = branch.add_(x)
            return add_mlp(x, self.norm2(x), self.mlp.fc1, self.mlp.fc2)
        x = x + self._scaled(branch)
        return x + self._scaled(self.mlp(self.norm2(x)))

    def _scaled(self, branch: Tensor) -> Tensor:
        return self.drop_path(branch if self.gamma is None else self.gamma * branch)
