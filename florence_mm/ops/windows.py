"""Partition of a map into (shifted) windows, and back, as a permutation of its tokens; relative position bias.

Shapes: ``B`` batch, ``L`` tokens of the map (product of its sizes), ``C`` channels, ``W`` windows a map, ``N`` tokens
a window, ``h`` heads. A map has any number of axes: ``(H, W)`` for images, ``(T, H, W)`` for clips. A bias table for a
window ``(w0, w1, ...)`` is ``((2 w0 - 1)(2 w1 - 1)..., h)``.

Cyclic shift, padding and partition together are one permutation of tokens, computed once per map size; applying it
costs one ``index_select`` each way. The backward pass is the other ``index_select`` (the default one would add into
zeros).
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .inference import is_compiling, is_traced
from .traced_windows import MASKED, cut_windows, join_windows, traced_mask, traced_partition

_CACHE_SIZE = 64
_cache: OrderedDict[tuple, 'WindowPlan'] = OrderedDict()
_lock = threading.Lock()


def fix_sizes(sizes: tuple[int, ...]) -> None:
    """Compile for these sizes: a compiler would otherwise take them for free at the second size it meets.

    Windows of a free size are divisions and remainders of symbols, which take minutes to simplify.
    """
    if is_compiling():
        for size in sizes:
            len(range(size))  # the one use of a size that fixes it


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Window partition of one map size.

    Attributes:
        size: tokens of the map along each axis.
        window_size: tokens of a window along each axis.
        shift_size: how far the windows are shifted along each axis.
        num_windows: ``W``.
        order: ``(W * N,)`` int64, the token in each slot (0 for padding); ``None`` if slots and tokens have the same
            order.
        inverse: ``(L,)`` int64, the slot of each token; ``None`` if ``order`` is.
        padding: slots without a token; ``None`` if there are none. While a model is exported, ``(W * N,)`` bool.
        mask: ``(W, N, N)`` float32, 0 or :data:`MASKED`; ``None`` without shift.
    """

    size: tuple[int, ...]
    window_size: tuple[int, ...]
    shift_size: tuple[int, ...]
    num_windows: int
    order: Tensor | None
    inverse: Tensor | None
    padding: Tensor | None
    mask: Tensor | None


def fit_window(
    size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Fit window and shift to a map: an axis not longer than the window becomes one window without shift.

    The rule of Swin's public code on square maps, axis by axis as in Video Swin (``get_window_size``).

    >>> fit_window((56, 7), (7, 7), (3, 3))
    ((7, 7), (3, 0))
    """
    # a free size that fits into the window is fixed, as the window's own size must be
    fitted = tuple(w if s > w else int(s) for s, w in zip(size, window_size, strict=True))
    shift = tuple(0 if s <= w else d for s, w, d in zip(size, window_size, shift_size, strict=True))
    return fitted, shift


def window_plan(
    size: tuple[int, ...],
    window_size: tuple[int, ...],
    shift_size: tuple[int, ...],
    device: torch.device | str = 'cpu',
) -> WindowPlan:
    """Make the window partition for a map of ``size``; the last 64 are cached.

    An axis that its window does not divide is padded at its end (mmdet's Swin pads bottom and right), before the
    shift.

    Raises:
        ValueError: a shift that is negative or not smaller than the window.

    >>> window_plan((4, 4), (2, 2), (0, 0)).order  # the map's tokens are numbered row by row
    tensor([ 0,  1,  4,  5,  2,  3,  6,  7,  8,  9, 12, 13, 10, 11, 14, 15])
    >>> window_plan((2, 4), (2, 2), (0, 1)).order
    tensor([1, 2, 5, 6, 3, 0, 7, 4])
    """
    if is_compiling():  # the map itself is cut
        windows = math.prod([-(-s // w) for s, w in zip(size, window_size, strict=True)])
        mask = traced_mask(size, window_size, shift_size, device)
        return WindowPlan(size, window_size, shift_size, windows, None, None, None, mask)
    if any(isinstance(s, torch.SymInt) for s in size):
        partition = traced_partition(size, window_size, shift_size, device)
        windows = partition.order.shape[0] // math.prod(window_size)  # len() would fix it
        return WindowPlan(size, window_size, shift_size, windows, *partition)
    # runtimes know a mask better than places to fill
    key = (tuple(size), tuple(window_size), tuple(shift_size), str(device), is_traced())
    if torch.jit.is_tracing():  # a repeated trace must record the same operators
        return _make_plan(*key[:3], torch.device(device), True)
    return kept_plan(key, lambda: _make_plan(*key[:3], torch.device(device), is_traced()))


def kept_plan(key: tuple, make: Callable[[], 'WindowPlan']) -> 'WindowPlan':
    """Return the plan of a key; it is made if it is not one of the last 64 that were used."""
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    plan = make()
    # tensors of a tracer (FakeTensor and the like) must not outlive it
    if plan.order is None or type(plan.order) is Tensor:
        with _lock:
            _cache[key] = plan
            while len(_cache) > _CACHE_SIZE:
                _cache.popitem(last=False)
    return plan


def _make_plan(
    size: tuple, window_size: tuple, shift_size: tuple, device: torch.device, padding_as_mask: bool
) -> WindowPlan:
    if not all(0 <= d < w for d, w in zip(shift_size, window_size, strict=True)):
        raise ValueError(f'shift_size {shift_size} must be at least 0 and smaller than window_size {window_size}')
    length = int(np.prod(size))
    padded = tuple(-(-s // w) * w for s, w in zip(size, window_size, strict=True))
    tokens = np.full(padded, -1)
    tokens[tuple(slice(s) for s in size)] = np.arange(length).reshape(size)
    tokens = np.roll(tokens, [-d for d in shift_size], axis=tuple(range(len(size))))
    order = _cut(tokens, window_size).reshape(-1)  # (W * N,)
    padding = np.flatnonzero(order < 0)
    identity = len(padding) == 0 and bool((order == np.arange(length)).all())
    slots = np.flatnonzero(order >= 0)
    inverse = np.empty(length, dtype=np.int64)
    inverse[order[slots]] = slots

    mask = None
    if any(shift_size):
        regions = np.zeros(padded, dtype=np.int64)
        for axis, (p, w, d) in enumerate(zip(padded, window_size, shift_size, strict=True)):
            if d:
                # three strips of the shifted axis: whole windows, the rest of the last window, what wrapped around
                strip = np.repeat(np.arange(3), [p - w, w - d, d])
                regions = 3 * regions + strip.reshape([-1 if a == axis else 1 for a in range(len(size))])
        regions = _cut(regions, window_size)  # (W, N)
        mask = np.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED).astype(np.float32)

    # a plan made in inference mode must also serve training
    with torch.inference_mode(False):

        def tensor(array: np.ndarray | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(device)

        return WindowPlan(
            size=size,
            window_size=window_size,
            shift_size=shift_size,
            num_windows=len(order) // int(np.prod(window_size)),
            order=None if identity else tensor(np.maximum(order, 0)),
            inverse=None if identity else tensor(inverse),
            padding=tensor(order < 0 if padding_as_mask else padding) if len(padding) else None,
            mask=tensor(mask),
        )


def _cut(array: np.ndarray, window_size: tuple[int, ...]) -> np.ndarray:
    """Partition ``(P0, P1, ...)`` into ``(W, N)``, windows and the tokens in them in raster order."""
    axes = len(window_size)
    split = [n for p, w in zip(array.shape, window_size, strict=True) for n in (p // w, w)]
    array = array.reshape(split)  # (W0, w0, W1, w1, ...)
    array = array.transpose([*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)])  # (W0, W1, ..., w0, w1, ...)
    return array.reshape(-1, int(np.prod(window_size)))  # (W, N)


class _Permute(torch.autograd.Function):
    """Permute from map order to window order (``to_windows``) or back; each is the gradient of the other."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, plan: WindowPlan, to_windows: bool) -> Tensor:
        ctx.plan, ctx.to_windows = plan, to_windows
        if not to_windows:
            return x.index_select(1, plan.inverse)
        x = x.index_select(1, plan.order)
        return x if plan.padding is None else x.index_fill_(1, plan.padding, 0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        return _Permute.apply(grad, ctx.plan, not ctx.to_windows), None, None


def to_tokens(x: Tensor) -> Tensor:
    """Flatten a map ``(B, C, *S)`` to tokens ``(B, L, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Reshape tokens ``(B, L, C)`` to a map ``(B, C, *S)``."""
    return x.transpose(1, 2).unflatten(2, size)


def to_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """Partition into windows: map order ``(B, L, C)`` to window order ``(B, W * N, C)``; padded slots are zero."""
    if is_compiling():
        return cut_windows(x, plan.size, plan.window_size, plan.shift_size)
    if plan.order is None:
        return x
    if not is_traced() and torch.is_grad_enabled():
        return _Permute.apply(x, plan, True)
    x = x.index_select(1, plan.order)
    if plan.padding is None:
        return x
    return x.masked_fill(plan.padding[:, None], 0) if is_traced() else x.index_fill_(1, plan.padding, 0)


def from_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """Reverse the partition: window order ``(B, W * N, C)`` to map order ``(B, L, C)``; padded slots are dropped."""
    if is_compiling():
        return join_windows(x, plan.size, plan.window_size, plan.shift_size)
    if plan.order is None:
        return x
    if is_traced() or not torch.is_grad_enabled():
        return x.index_select(1, plan.inverse)
    return _Permute.apply(x, plan, False)


# --- relative positions within a window ------------------------------------------------------------------------------

_INDICES = 64  # cached, over all windows and devices
_indices: OrderedDict[tuple, Tensor] = OrderedDict()


@lru_cache(maxsize=64)
def _index(window_size: tuple[int, ...], table_window: tuple[int, ...]) -> np.ndarray:
    coords = np.stack(np.meshgrid(*map(np.arange, window_size), indexing='ij')).reshape(len(window_size), -1)
    relative = coords[:, :, None] - coords[:, None, :]  # (axes, N, N)
    index = np.zeros(relative.shape[1:], dtype=np.int64)
    for offset, window in zip(relative, table_window, strict=True):
        index = index * (2 * window - 1) + offset + window - 1
    return index


def relative_position_index(window_size: tuple[int, ...], table_window: tuple[int, ...] | None = None) -> Tensor:
    """The row of the bias table for each pair of tokens of a window, ``(N, N)`` int64.

    Args:
        window_size: the window in use.
        table_window: the window the table was made for, at least as large along each axis; default ``window_size``.
            A smaller window uses the rows of those offsets that occur in it.

    >>> relative_position_index((1, 3))  # the table's rows are the offsets -2 to 2
    tensor([[2, 1, 0],
            [3, 2, 1],
            [4, 3, 2]])
    """
    return torch.from_numpy(_index(tuple(window_size), tuple(table_window or window_size)))


def relative_position_bias(
    table: Tensor, window_size: tuple[int, ...], table_window: tuple[int, ...] | None = None, by_slot: bool = False
) -> Tensor:
    """Look up the relative position bias of a window, ``(h, N, N)``; differentiable in the table.

    Args:
        table: ``(rows, h)``.
        window_size: the window in use.
        table_window: the window the table was made for, as in :func:`relative_position_index`.
        by_slot: a smaller window uses the bias between the first ``N`` tokens of the table's window, as Video Swin's
            public code does, instead of the bias of its own offsets. Both are the same for a window that is shorter
            along the first axis only.
    """
    index = _index_on(table.device, tuple(window_size), tuple(table_window or window_size), by_slot)
    bias = table.index_select(0, index.reshape(-1))  # (N * N, h)
    return bias.view(*index.shape, -1).permute(2, 0, 1).contiguous()  # (h, N, N)


def _index_on(device: torch.device, window: tuple[int, ...], table_window: tuple[int, ...], by_slot: bool) -> Tensor:
    """The index ``(N, N)`` int64 on a device, cached, as copying takes longer than the lookup."""
    if is_compiling():
        return _traced_index(window, table_window, by_slot, device)
    if is_traced():
        return _make_index(window, table_window, by_slot).to(device)
    key = (device, window, table_window, by_slot)
    index = _indices.get(key)
    if index is None:
        with torch.inference_mode(False):  # an index made in inference mode must also serve training
            index = _make_index(window, table_window, by_slot).to(device)
        if type(index) is Tensor:  # tensors of a tracer (FakeTensor and the like) must not outlive it
            _indices[key] = index
            while len(_indices) > _INDICES:
                _indices.popitem(last=False)
    return index


def _make_index(window: tuple[int, ...], table_window: tuple[int, ...], by_slot: bool) -> Tensor:
    if not by_slot:
        return relative_position_index(window, table_window)
    tokens = math.prod(window)
    return relative_position_index(table_window)[:tokens, :tokens]


def _traced_index(
    window: tuple[int, ...], table_window: tuple[int, ...], by_slot: bool, device: torch.device
) -> Tensor:
    """:func:`_make_index` by operators, which a compiler fuses with the lookup."""
    place = torch.arange(math.prod(window), device=device)
    sizes = table_window if by_slot else window
    index = torch.zeros((), dtype=torch.int64, device=device)
    for axis, rows in enumerate(table_window):
        coord = place // math.prod(sizes[axis + 1 :]) % sizes[axis]
        index = index * (2 * rows - 1) + coord[:, None] - coord + rows - 1
    return index
