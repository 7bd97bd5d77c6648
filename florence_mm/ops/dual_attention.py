"""The two attentions of DaViT (arXiv 2204.03645): within windows without shift, and between channels.

**Windows.** A map is padded with zeros below and right to a multiple of the window, and padded tokens are neither
masked nor different from each other: their queries, keys and values are the projection of zeros. So no padded token is
computed here. A window at the edge attends to its own tokens and to one more key, that of zeros, with the logarithm of
the number of padded tokens added to its score; this is the same sum, of far fewer terms. At 224 pixels the third stage
of DaViT has 196 tokens and would have 576 with padding.

**Channels.** Groups of channels take the place of heads, and the channels of a group attend to each other: ``d x d``
scores a group, from all tokens.

Shapes: ``B`` images, ``H, W`` size of a map, ``L = H W`` tokens, ``C`` channels, ``h`` heads or groups, ``d = C / h``.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import WindowPlan, kept_plan


@dataclass(frozen=True)
class Windows:
    """Windows of one size of a batch of maps.

    Attributes:
        count: number of windows, of all images together.
        tokens: tokens of each.
        padded: padded tokens of each, which are not among them.
    """

    count: int
    tokens: int
    padded: int


@dataclass(frozen=True, eq=False)
class EdgePlan(WindowPlan):
    """Order of the tokens of a batch ``(1, B * L)`` by window, those of one size together, without padded tokens.

    Attributes:
        groups: the windows in that order.
    """

    groups: tuple[Windows, ...] = ()


def edge_plan(batch: int, size: tuple[int, int], window: int, device: torch.device | str = 'cpu') -> EdgePlan:
    """Make the partition of maps into windows of which those at the edges are smaller; see :class:`EdgePlan`.

    Args:
        batch: ``B``.
        size: ``(H, W)``.
        window: side of a window.
        device: where the order is needed.

    >>> [(g.count, g.tokens, g.padded) for g in edge_plan(1, (4, 5), 3).groups]
    [(1, 9, 0), (1, 6, 3), (1, 3, 6), (1, 2, 7)]
    >>> edge_plan(1, (4, 5), 3).order.tolist()
    [0, 1, 2, 5, 6, 7, 10, 11, 12, 3, 4, 8, 9, 13, 14, 15, 16, 17, 18, 19]
    """
    key = ('edges', batch, tuple(size), window, str(device))
    return kept_plan(key, lambda: _make_plan(batch, tuple(size), window, torch.device(device)))


def _make_plan(batch: int, size: tuple[int, int], window: int, device: torch.device) -> EdgePlan:
    tokens = np.arange(batch * math.prod(size)).reshape(batch, *size)
    rows, columns = ([(0, s // window * window), (s // window * window, s)] for s in size)
    orders, groups = [], []
    for top, bottom in rows:
        for left, right in columns:
            if bottom == top or right == left:
                continue
            height, width = min(window, bottom - top), min(window, right - left)
            part = tokens[:, top:bottom, left:right]
            part = part.reshape(batch, (bottom - top) // height, height, (right - left) // width, width)
            part = part.transpose(0, 1, 3, 2, 4).reshape(-1, height * width)
            orders.append(part.reshape(-1))
            groups.append(Windows(len(part), height * width, window**2 - height * width))
    order = np.concatenate(orders)
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    same = bool((order == inverse).all() and (order[:-1] < order[1:]).all())
    with torch.inference_mode(False):  # a plan made in inference mode must also serve training
        pair = (None, None) if same else tuple(torch.from_numpy(array).to(device) for array in (order, inverse))
        return EdgePlan(size, (window, window), (0, 0), sum(g.count for g in groups), *pair, None, None, tuple(groups))


def edge_window_attention(qkv: Tensor, zeros: Tensor, groups: tuple[Windows, ...], num_heads: int) -> Tensor:
    """Attend within windows of which some are padded with equal tokens.

    Args:
        qkv: ``(B * L, 3 C)`` in the order of an :class:`EdgePlan`, channels as ``[q, k, v]`` times ``[h, d]``.
        zeros: ``(3 C,)``, query, key and value of a padded token.
        groups: the windows.
        num_heads: ``h``.

    Returns:
        ``(B * L, C)`` in the same order.
    """
    outs = []
    for part, group in zip(qkv.split([g.count * g.tokens for g in groups]), groups, strict=True):
        # (count, tokens, 3, h, d) -> three of (count, h, tokens, d)
        q, k, v = part.view(group.count, group.tokens, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        mask = None
        if group.padded:
            _, key, value = (x.expand(group.count, -1, -1, -1) for x in zeros.view(3, num_heads, 1, -1))
            k, v = torch.cat([k, key], 2), torch.cat([v, value], 2)
            mask = q.new_zeros(1, 1, 1, group.tokens + 1)
            mask[..., -1] = math.log(group.padded)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        outs.append(out.transpose(1, 2).reshape(-1, qkv.shape[1] // 3))
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def whole_window_attention(qkv: Tensor, windows: int, num_heads: int) -> Tensor:
    """Attend within windows that hold their padded tokens; for graphs, whose sizes may be free.

    Args:
        qkv: ``(B, W * N, 3 C)`` in window order.
        windows: ``W``.
        num_heads: ``h``.

    Returns:
        ``(B, W * N, C)``.
    """
    batch, slots, channels = qkv.shape
    # (B, W, N, 3, h, d) -> three of (B * W, h, N, d)
    qkv = qkv.view(batch, windows, slots // windows, 3, num_heads, channels // (3 * num_heads))
    q, k, v = (x.flatten(0, 1) for x in qkv.permute(3, 0, 1, 4, 2, 5))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.view(batch, windows, num_heads, slots // windows, -1).transpose(2, 3).reshape(batch, slots, -1)


def channel_attention(qkv: Tensor, groups: int, scale: float) -> Tensor:
    """Attend among the channels of each group; the tokens are the coordinates of a channel.

    Args:
        qkv: ``(B, L, 3 C)``, channels as ``[q, k, v]`` times ``[h, d]``.
        groups: ``h``.
        scale: factor on the scores.

    Returns:
        ``(B, L, C)``.
    """
    # (B, L, 3, h, d) -> three of (B, h, L, d)
    q, k, v = qkv.unflatten(-1, (3, groups, -1)).permute(2, 0, 3, 1, 4)
    weights = (torch.matmul(q.transpose(-2, -1), k) * scale).softmax(-1)  # (B, h, d, d)
    out = torch.matmul(v, weights.transpose(-2, -1))  # (B, h, L, d)
    return out.transpose(1, 2).flatten(2)
