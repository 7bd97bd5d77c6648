"""The window partition of a model that is exported or compiled: made by operators, as sizes may be free.

An exported model looks tokens up by an index, which runtimes do fast. A compiled one cuts and shifts the map itself
(:func:`cut_windows`), as a compiler turns that into address arithmetic of the operators before and after it.

Shapes as in :mod:`~florence_mm.ops.windows`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -100.0  # added to the score of two tokens that the shift brought together (Swin, swin_transformer.py)


class TracedPartition(NamedTuple):
    """Tensors of a window partition.

    Attributes:
        order: ``(W * N,)`` int64, the token in each slot (0 for padding).
        inverse: ``(L,)`` int64, the slot of each token.
        padding: ``(W * N,)`` bool, True for slots without a token.
        mask: ``(W, N, N)`` float32, 0 or :data:`MASKED`; ``None`` without shift.
    """

    order: Tensor
    inverse: Tensor
    padding: Tensor
    mask: Tensor | None


def traced_partition(
    size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...], device: torch.device | str
) -> TracedPartition:
    """Make the window partition of a map whose sizes may be symbols (``torch.SymInt``).

    Args:
        size: tokens of the map along each axis.
        window_size: tokens of a window along each axis.
        shift_size: how far the windows are shifted along each axis.
        device: device of the tensors.
    """
    length = math.prod(size)
    padded = [(s + w - 1) // w * w for s, w in zip(size, window_size, strict=True)]
    missing = [p - s for p, s in zip(padded, size, strict=True)]
    tokens = torch.arange(length, device=device).view(size)
    tokens = F.pad(tokens, [n for m in reversed(missing) for n in (0, m)], value=-1)
    tokens = torch.roll(tokens, [-d for d in shift_size], list(range(len(size))))
    order = _cut(tokens, window_size).flatten()  # (W * N,)
    padding = order < 0
    slots = torch.arange(order.shape[0], device=device)
    # padding writes behind the last token
    inverse = slots.new_zeros(length + 1).scatter(0, torch.where(padding, length, order), slots)[:length]

    return TracedPartition(order.clamp(min=0), inverse, padding, traced_mask(size, window_size, shift_size, device))


def traced_mask(
    size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...], device: torch.device | str
) -> Tensor | None:
    """Make the mask of shifted windows ``(W, N, N)``, 0 or :data:`MASKED`; ``None`` without shift."""
    if not any(shift_size):
        return None
    regions = torch.zeros((1,) * len(size), dtype=torch.int64, device=device)
    for axis, (s, w, d) in enumerate(zip(size, window_size, shift_size, strict=True)):
        p = (s + w - 1) // w * w
        place = torch.arange(p, device=device)
        # three strips of the shifted axis: whole windows, the rest of the last window, what wrapped around
        strip = (place >= p - w).long() + (place >= p - d).long() if d else torch.zeros_like(place)
        regions = 3 * regions + strip.view([-1 if a == axis else 1 for a in range(len(size))])
    regions = _cut(regions, window_size)  # (W, N)
    return (regions[:, :, None] != regions[:, None, :]) * MASKED


def cut_windows(x: Tensor, size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...]) -> Tensor:
    """Partition tokens ``(B, L, C)`` of a map into shifted windows, ``(B, W * N, C)``; padded slots are zero."""
    axes = list(range(1, len(size) + 1))
    missing = [-s % w for s, w in zip(size, window_size, strict=True)]
    x = x.unflatten(1, size)  # (B, *S, C)
    if any(missing):
        x = F.pad(x, [0, 0, *(n for m in reversed(missing) for n in (0, m))])
    if any(shift_size):
        x = torch.roll(x, [-d for d in shift_size], axes)
    pairs = [n for s, m, w in zip(size, missing, window_size, strict=True) for n in ((s + m) // w, w)]
    x = x.reshape(x.shape[0], *pairs, x.shape[-1])  # (B, W0, w0, W1, w1, ..., C)
    last = 2 * len(size) + 1
    return x.permute(0, *range(1, last, 2), *range(2, last, 2), last).flatten(1, -2)


def join_windows(x: Tensor, size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...]) -> Tensor:
    """Reverse :func:`cut_windows`, ``(B, W * N, C)`` to ``(B, L, C)``; padded slots are dropped."""
    axes = len(size)
    counts = [-(-s // w) for s, w in zip(size, window_size, strict=True)]
    x = x.reshape(x.shape[0], *counts, *window_size, x.shape[-1])  # (B, W0, W1, ..., w0, w1, ..., C)
    x = x.permute(0, *(n for a in range(1, axes + 1) for n in (a, a + axes)), 2 * axes + 1)
    x = x.reshape(x.shape[0], *(n * w for n, w in zip(counts, window_size, strict=True)), x.shape[-1])
    if any(shift_size):
        x = torch.roll(x, list(shift_size), list(range(1, axes + 1)))
    for axis, s in enumerate(size):
        x = x.narrow(axis + 1, 0, s)
    return x.flatten(1, -2)


def _cut(x: Tensor, window_size: tuple[int, ...]) -> Tensor:
    """Partition ``(P0, P1, ...)`` into ``(W, N)``, windows and the tokens in them in raster order."""
    axes = len(window_size)
    x = x.reshape([n for p, w in zip(x.shape, window_size, strict=True) for n in (p // w, w)])  # (W0, w0, W1, w1, ...)
    x = x.permute(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2))  # (W0, W1, ..., w0, w1, ...)
    return x.reshape(-1, math.prod(window_size))
