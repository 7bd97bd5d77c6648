"""Scaled dot-product attention with a dropout that is fast on a CPU.

Dropout draws 16 random bits per element: a full draw of torch's generator for each costs a CPU more than the
arithmetic around it.

Shape legend: ``B`` batch, ``H`` heads, ``L`` queries, ``S`` keys, ``D`` channels of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_STEPS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """Drop each element with probability ``p`` and scale the others, so that the mean stays (dropout).

    On a CPU ``p`` is rounded to a multiple of 1 / 65536, and the scale follows the rounded value; elsewhere this is
    ``F.dropout``. Draws from torch's generator.

    Args:
        x: any shape.
        p: from 0 up to, but not including, 1.
    """
    dropped = round(p * _STEPS)
    if dropped == 0:
        return x
    if x.device.type != 'cpu' or torch.compiler.is_compiling():
        return F.dropout(x, p)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - _STEPS // 2
    return x * kept.to(x.dtype).mul_(_STEPS / (_STEPS - dropped))


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, dropout_p: float = 0.0
) -> Tensor:
    """Scaled dot-product attention: torch's, or written out for dropout on a CPU, where torch has no fused kernel.

    Args:
        query: ``(B, H, L, D)``.
        key: ``(B, H, S, D)``.
        value: ``(B, H, S, D)``.
        mask: ``(B, 1, 1, S)`` bool, True for keys that may be attended to; None: all. It is not expanded.
        causal: query i attends to keys 0 to i; not together with ``mask``.
        dropout_p: dropout probability of the attention weights.

    Returns:
        ``(B, H, L, D)``.
    """
    if dropout_p == 0 or query.device.type != 'cpu' or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p, is_causal=causal)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))  # (B, H, L, S)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()  # (L, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.matmul(dropout(scores.softmax(-1), dropout_p), value)
