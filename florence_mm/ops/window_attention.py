"""Multi-head attention inside the windows of a map of any number of axes (Swin, arXiv 2103.14030, section 3.2).

Shapes: ``B`` batch, ``W`` windows a map, ``N`` tokens a window, ``h`` heads, ``d`` channels a head, ``C = h d``.

Scores get one additive tensor: relative position bias and shift mask together. Which kernel is used depends on
whether that tensor learns. PyTorch's fused CPU attention gives no gradient to it and would fall back to a slow
path without a word, so on the CPU a learning bias takes explicit matrix products, everything else the fused kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import WindowPlan


def attention_bias(bias: Tensor, plan: WindowPlan) -> Tensor:
    """Position bias ``(h, N, N)`` and the plan's mask as one ``(W, h, N, N)``, or ``(1, h, N, N)`` without shift."""
    if plan.mask is None:
        return bias.unsqueeze(0)
    return bias + plan.mask.to(bias.dtype).unsqueeze(1)  # (h, N, N) + (W, 1, N, N)


def window_attention(qkv: Tensor, bias: Tensor, num_heads: int, dropout_p: float = 0.0) -> Tensor:
    """Attention of each window's tokens to one another.

    Args:
        qkv: ``(B, W * N, 3 C)`` in window order (:func:`~florence_mm.ops.windows.to_windows`), channels as in
            ``[q, k, v]`` times ``[h, d]``. Scores are scaled by ``d ** -0.5``.
        bias: ``(W, h, N, N)`` or ``(1, h, N, N)``, added to the scaled scores.
        num_heads: ``h``.
        dropout_p: probability that a weight is dropped; 0 outside training.

    Returns:
        ``(B, W * N, C)`` in window order.

    Raises:
        ValueError: shapes that do not belong together.
    """
    batch, slots, channels = qkv.shape
    tokens = bias.shape[-1]
    if bias.shape[1:] != (num_heads, tokens, tokens) or slots % tokens or channels % (3 * num_heads):
        raise ValueError(
            f'qkv {tuple(qkv.shape)}, bias {tuple(bias.shape)} and {num_heads} heads do not fit: expected qkv '
            f'(B, W * N, 3 C) and bias (W or 1, heads, N, N) with C divisible by the heads'
        )
    if bias.shape[0] not in (1, slots // tokens):
        raise ValueError(f'bias is for {bias.shape[0]} windows, qkv has {slots // tokens}; give 1 or as many')
    bias = bias.to(qkv.dtype)
    # (B, W, N, 3, h, d) -> three of (B, W, h, N, d)
    q, k, v = qkv.view(batch, -1, tokens, 3, num_heads, channels // (3 * num_heads)).permute(3, 0, 1, 4, 2, 5)
    if qkv.device.type == 'cpu':
        learns = bias.requires_grad and torch.is_grad_enabled()
        out = _explicit(q, k, v, bias, dropout_p) if learns else _fused_by_window(q, k, v, bias, dropout_p)
    else:
        out = _fused_by_head(q, k, v, bias, dropout_p)
    return out.reshape(batch, slots, channels // 3)


def _fused_by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """Windows folded into heads: the bias of a whole map is broadcast over the batch, never repeated."""
    batch, windows, heads, tokens, _ = q.shape
    if bias.shape[0] == 1:
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (B * W, h, N, d)
    else:
        q, k, v = (t.flatten(1, 2) for t in (q, k, v))  # (B, W * h, N, d)
        bias = bias.flatten(0, 1).unsqueeze(0)  # (1, W * h, N, N)
    # memory-efficient kernels want rows that start at multiples of 16 bytes: pad the storage, not the view
    bias = F.pad(bias, (0, -tokens % 8))[..., :tokens]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout_p)
    return out.view(batch, windows, heads, tokens, -1).transpose(2, 3)  # (B, W, N, h, d)


def _fused_by_window(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """Windows as the batch: the CPU kernel reads q, k and v where they are and writes tokens in order, no copies."""
    batch, windows, heads, tokens, dim = q.shape
    if bias.shape[0] == 1 or batch == 1:
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (B * W, h, N, d)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout_p)
        return out.transpose(1, 2).view(batch, windows, tokens, heads, dim)
    # one image at a time, so that the bias of the windows need not be repeated for each image
    images = [
        F.scaled_dot_product_attention(q[i], k[i], v[i], attn_mask=bias, dropout_p=dropout_p).transpose(1, 2)
        for i in range(batch)
    ]
    return torch.stack(images)  # (B, W, N, h, d)


def _explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """Matrix products with a bias that learns."""
    batch, windows, heads, tokens, dim = q.shape
    q, k, v = (t.reshape(-1, tokens, dim) for t in (q, k, v))  # (B * W * h, N, d)
    # beta=0 leaves the first argument out; the scale costs nothing inside the product
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=dim**-0.5)
    scores = scores.view(batch, windows, heads, tokens, tokens) + bias
    weights = scores.view(-1, tokens, tokens).softmax(-1).to(v.dtype)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    out = torch.bmm(weights, v)  # (B * W * h, N, d)
    return out.view(batch, windows, heads, tokens, dim).transpose(2, 3)  # (B, W, N, h, d)
