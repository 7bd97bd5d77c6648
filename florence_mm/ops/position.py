"""Resizing of relative position tables and position embeddings, and Fourier features of places.

Shapes: ``N`` tokens a window, ``h`` heads; a table for a window ``(w0, w1, ...)`` is ``((2 w0 - 1)(2 w1 - 1)..., h)``.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from florence_mm.moved import moved_names

from .precision import at_least_float32

__getattr__ = moved_names(
    __name__, dict.fromkeys(('relative_position_bias', 'relative_position_index'), 'florence_mm.ops.windows')
)


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


def resize_position_embedding(
    embed: Tensor, size: tuple[int, int], from_size: tuple[int, int], antialias: bool = False
) -> Tensor:
    """Resize an absolute position embedding to another map size, bicubic as in the public code.

    Args:
        embed: ``(1, H * W, C)`` for a map of ``from_size``.
        size: the target size.
        from_size: ``(H, W)``.
        antialias: smooth before shrinking; it also changes the kernel, and so the result of enlarging.
    """
    if tuple(size) == tuple(from_size):
        return embed
    grid = embed.transpose(1, 2).unflatten(2, tuple(from_size))  # (1, C, H, W)
    sized = F.interpolate(
        at_least_float32(grid), size=tuple(size), mode='bicubic', align_corners=False, antialias=antialias
    )
    return sized.flatten(2).transpose(1, 2).to(embed.dtype)


def resize_token_positions(
    embed: Tensor, size: tuple[int, int], from_size: tuple[int, int], antialias: bool = False
) -> Tensor:
    """Resize the positions ``(1 + H * W, C)`` of a class token and a map; that of the class token stays.

    Args:
        embed: positions for a map of ``from_size``, that of the class token first.
        size: the target size.
        from_size: ``(H, W)``.
        antialias: see :func:`resize_position_embedding`.
    """
    if tuple(size) == tuple(from_size):
        return embed
    patches = resize_position_embedding(embed[None, 1:], size, from_size, antialias)[0]
    return torch.cat([embed[:1], patches])


def grid_places(size: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Return the places of a map, each axis from -1 at its first to 1 at its last position.

    Args:
        size: length of each of A axes.
        device: where to make them.

    Returns:
        ``(size[0] * size[1] * ..., A)``, the last axis of the map the fastest.

    >>> grid_places((2, 3)).tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axes = [torch.linspace(-1.0, 1.0, steps, device=device) for steps in size]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).flatten(0, -2)


def fourier_features(places: Tensor, num_bands: int, resolution: Sequence[int]) -> Tensor:
    """Describe places by themselves and by sines and cosines of them (Perceiver, arXiv 2103.03206, section 3.2).

    The frequencies of an axis are equally spaced from 1 to half its resolution, the highest that so many positions from
    -1 to 1 can show.

    Args:
        places: ``(..., A)``, each coordinate from -1 to 1.
        num_bands: K, frequencies of each axis.
        resolution: positions on each of the A axes.

    Returns:
        ``(..., A + 2 A K)``: the places, the sines of all axes, the cosines of all axes.
    """
    bands = torch.stack([torch.linspace(1.0, steps / 2, num_bands, device=places.device) for steps in resolution])
    angles = (places[..., None] * bands * math.pi).flatten(-2)  # (..., A, K) -> (..., A K)
    return torch.cat([places, angles.sin(), angles.cos()], -1)
