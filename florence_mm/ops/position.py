"""Relative position bias of window attention, and resizing of position tables and embeddings.

Shapes: ``N`` tokens a window, ``h`` heads; a table for a window ``(w0, w1, ...)`` is ``((2 w0 - 1)(2 w1 - 1)..., h)``.
"""

import math
from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    if torch.compiler.is_compiling():
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


def resize_relative_position_table(
    table: Tensor, window_size: tuple[int, ...], from_window: tuple[int, ...] | None = None
) -> Tensor:
    """Resize a bias table to another window: bicubic over the last two axes (space), linear over time.

    In space this is the rule of the public Microsoft code (Swin ``utils.py``, CoSwin ``coswin.py``): bicubic
    ``F.interpolate`` without aligned corners on the ``(h, 2 w0 - 1, 2 w1 - 1)`` image of the table. No public code has
    a rule for time; here it is the same call, linear, over the ``2 t - 1`` steps. Both keep the value of offset 0, and
    a table that is constant over time stays so.

    Args:
        table: ``(rows, h)``, of a square 2-D window unless ``from_window`` is given.
        window_size: the target window, ``(height, width)`` or ``(steps, height, width)``.
        from_window: the window of the table, with as many axes; needed in 3-D, see :func:`table_window`.

    Raises:
        ValueError: the number of rows is not that of a window.
    """
    rows, heads = table.shape
    if from_window is None:
        side = math.isqrt(rows)
        if side * side != rows or side % 2 == 0:
            raise ValueError(
                f'a relative position table of {rows} rows does not belong to a square window; '
                f'a window of w x w tokens has (2w - 1)^2 rows'
            )
        from_window = ((side + 1) // 2,) * 2
    source, target = ([2 * w - 1 for w in window] for window in (from_window, window_size))
    if rows != math.prod(source) or len(source) != len(target):
        raise ValueError(f'a window {tuple(from_window)} has a table of {math.prod(source)} rows, this one has {rows}')
    if source == target:
        return table
    values = table.float().t().reshape(heads, -1, *source[-2:])  # (h, 2 t - 1, 2 w0 - 1, 2 w1 - 1)
    if source[-2:] != target[-2:]:
        values = F.interpolate(values, size=target[-2:], mode='bicubic', align_corners=False)
    if source[:-2] != target[:-2]:
        values = values.flatten(2).transpose(1, 2)  # (h, places, 2 t - 1)
        values = F.interpolate(values, size=target[0], mode='linear', align_corners=False).transpose(1, 2)
    return values.reshape(heads, -1).t().contiguous().to(table.dtype)


def table_window(rows: int, like: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Infer the 3-D window of a bias table from its number of rows; None if it is ambiguous.

    Several windows may have equally many rows. The first of these that exists is taken: the window with the height and
    width of ``like``; a square one with the time steps of ``like``; the only square one of at least 2 x 2 tokens.

    Args:
        rows: number of rows of the table.
        like: the window of the model that will use the table, (steps, height, width).
    """
    steps, *space = (2 * w - 1 for w in like)
    if rows % math.prod(space) == 0 and rows // math.prod(space) % 2:
        return (rows // math.prod(space) + 1) // 2, *like[1:]
    sides = [side for side in range(3, math.isqrt(rows) + 1, 2) if rows % side**2 == 0 and rows // side**2 % 2]
    windows = [((rows // side**2 + 1) // 2, (side + 1) // 2, (side + 1) // 2) for side in sides]
    same_time = [window for window in windows if 2 * window[0] - 1 == steps]
    candidates = same_time or windows
    return candidates[0] if len(candidates) == 1 else None


def fit_relative_position_table(table: Tensor, window_size: tuple[int, ...]) -> Tensor | None:
    """Resize a checkpoint's bias table to a model's window; None if the table's 3-D window is ambiguous.

    Raises:
        ValueError: the table for a 2-D window is not that of a square window.
    """
    if len(window_size) == 2:
        return resize_relative_position_table(table, window_size)
    source = table_window(len(table), window_size)
    return source and resize_relative_position_table(table, window_size, source)


def resize_position_embedding(embed: Tensor, size: tuple[int, int], from_size: tuple[int, int]) -> Tensor:
    """Resize an absolute position embedding to another map size, bicubic as in the public code.

    Args:
        embed: ``(1, H * W, C)`` for a map of ``from_size``.
        size: the target size.
        from_size: ``(H, W)``.
    """
    if tuple(size) == tuple(from_size):
        return embed
    grid = embed.transpose(1, 2).unflatten(2, tuple(from_size))  # (1, C, H, W)
    return F.interpolate(grid, size=size, mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
