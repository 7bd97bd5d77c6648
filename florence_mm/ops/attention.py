"""Scaled dot-product attention with a dropout that is fast on a CPU, and attention within windows.

Dropout draws 16 random bits per element: a full draw of torch's generator for each costs a CPU more than the
arithmetic around it.

Windows are those of Swin (arXiv 2103.14030, section 3.2), of maps with any number of axes. Their kernel depends on the
device and on whether the bias needs a gradient: PyTorch's fused CPU attention gives a bias no gradient and silently
falls back to a slow path, so on a CPU such a bias takes :class:`LearningBiasAttention`; everything else takes the fused
kernel.

Shape legend: ``B`` batch, ``H`` heads, ``L`` queries, ``S`` keys, ``D`` channels of a head; of windows ``W`` a map,
``N`` tokens a window, ``h`` heads, ``d`` channels a head, ``C = h d``.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .tracing import is_traced

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
        mask: bool, True for keys that may be attended to, ``(B, 1, 1, S)`` or ``(1, 1, L, S)``; None: all. It is not
            expanded.
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


# --- within windows --------------------------------------------------------------------------------------------------


def window_attention(
    qkv: Tensor, bias: Tensor, num_heads: int, mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Attend among the tokens of each window (window attention).

    Args:
        qkv: ``(B, W * N, 3 C)`` in window order (:func:`~florence_mm.ops.windows.to_windows`), channels as
            ``[q, k, v]`` times ``[h, d]``. Scores are scaled by ``d ** -0.5``.
        bias: ``(h, N, N)``, or ``(W, h, N, N)`` if it differs between windows; added to the scaled scores.
        num_heads: ``h``.
        mask: ``(W, N, N)``, also added to the scores; without gradient.
        dropout_p: dropout probability of the attention weights; 0 outside training.

    Returns:
        ``(B, W * N, C)`` in window order.

    Raises:
        ValueError: shapes do not fit together.
    """
    batch, slots, channels = qkv.shape
    tokens = bias.shape[-1]
    windows = slots // tokens
    # free sizes follow from the partition, and comparing them would fix them
    if not is_traced() and (
        slots % tokens
        or channels % (3 * num_heads)
        or bias.shape not in ((num_heads, tokens, tokens), (windows, num_heads, tokens, tokens))
        or (mask is not None and mask.shape != (windows, tokens, tokens))
    ):
        raise ValueError(
            f'qkv {tuple(qkv.shape)}, bias {tuple(bias.shape)}, mask {None if mask is None else tuple(mask.shape)} and '
            f'{num_heads} heads do not fit: expected (B, W * N, 3 C), (h, N, N) or (W, h, N, N), and (W, N, N)'
        )
    if not is_traced() and not batch:
        return qkv[..., : channels // 3]  # empty: there is nothing to attend to
    bias = bias.to(qkv.dtype)
    mask = None if mask is None else mask.to(qkv.dtype)
    on_cpu = qkv.device.type == 'cpu'
    if on_cpu and bias.ndim == 3 and bias.requires_grad and torch.is_grad_enabled():
        qkv = qkv.view(batch, windows, tokens, channels)
        return LearningBiasAttention.apply(qkv, bias, mask, num_heads, dropout_p).view(batch, slots, -1)
    if mask is not None:
        bias = bias + mask.unsqueeze(1)  # (h, N, N) or (W, h, N, N), + (W, 1, N, N)
    # (B, W, N, 3, h, d) -> three of (B, W, h, N, d)
    q, k, v = qkv.view(batch, windows, tokens, 3, num_heads, -1).permute(3, 0, 1, 4, 2, 5)
    # by window there is a loop over the images, whose number may be free
    out = (_fused_by_window if on_cpu and not is_traced() else _fused_by_head)(q, k, v, bias, dropout_p)
    return out.reshape(batch, slots, -1)


def _fused_by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """Fused attention with windows folded into heads: a bias per window is broadcast over the batch, not repeated."""
    batch, windows, heads, tokens, _ = q.shape
    if bias.ndim == 3:
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (B * W, h, N, d)
    else:
        q, k, v = (t.flatten(1, 2) for t in (q, k, v))  # (B, W * h, N, d)
        bias = bias.flatten(0, 1)  # (W * h, N, N)
    # memory-efficient kernels want rows that start at multiples of 16 bytes: pad the storage, not the view
    bias = F.pad(bias, (0, -tokens % 8))[..., :tokens]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0), dropout_p=dropout_p)
    return out.view(batch, windows, heads, tokens, -1).transpose(2, 3)  # (B, W, N, h, d)


def _fused_by_window(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """Fused attention with windows as the batch: the CPU kernel reads q, k and v without copies."""
    if bias.ndim == 3:
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (B * W, h, N, d)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0), dropout_p=dropout_p)
        return out.transpose(1, 2)  # (B * W, N, h, d)
    # one image at a time, so that the bias of the windows need not be repeated for each image
    images = [
        F.scaled_dot_product_attention(*image, attn_mask=bias, dropout_p=dropout_p).transpose(1, 2)
        for image in zip(q, k, v, strict=True)
    ]
    return images[0] if len(images) == 1 else torch.stack(images)  # (B, W, N, h, d)


class LearningBiasAttention(torch.autograd.Function):
    """Window attention by explicit matrix products, with a gradient for the bias.

    Works head by head on views of the projection, so that q, k and v are not copied; all heads of the backward pass
    share one score tensor. Products go to a buffer and are copied from there: PyTorch would multiply into the strided
    output one window after the other.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, qkv: Tensor, bias: Tensor, mask: Tensor | None, num_heads: int, dropout_p: float
    ) -> Tensor:
        """Attend: ``qkv (B, W, N, 3 C)``, ``bias (h, N, N)`` and ``mask (W, N, N)`` to ``(B, W, N, C)``."""
        batch, windows, tokens, channels = qkv.shape
        out = qkv.new_empty(batch * windows, tokens, channels // 3)
        weights = qkv.new_empty(num_heads, batch, windows, tokens, tokens)
        keep = torch.rand_like(weights).ge_(dropout_p).div_(1 - dropout_p) if dropout_p else None
        product = out.new_empty(*out.shape[:2], out.shape[2] // num_heads)  # (B * W, N, d)
        for head, ((q, k, v), o) in enumerate(zip(_heads(qkv, 3, num_heads), _heads(out, 1, num_heads), strict=True)):
            score = weights[head].flatten(0, 1)  # (B * W, N, N)
            # beta=0 ignores the first argument; the scale costs nothing inside the product
            torch.baddbmm(score, q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5, out=score)
            weights[head].add_(bias[head] if mask is None else bias[head] + mask)
            torch.softmax(score, -1, out=score)
            o[0].copy_(torch.bmm(score if keep is None else score * keep[head].flatten(0, 1), v, out=product))
        ctx.save_for_backward(qkv, weights, keep)
        ctx.num_heads = num_heads
        return out.view(batch, windows, tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of ``qkv`` and ``bias``."""
        qkv, weights, keep = ctx.saved_tensors
        grad = grad.contiguous()
        grad_qkv = torch.empty_like(qkv)
        grad_bias = weights.new_empty(weights.shape[0], *weights.shape[3:])
        score = torch.empty_like(weights[0].flatten(0, 1))  # (B * W, N, N)
        product = grad.new_empty(*score.shape[:2], grad.shape[-1] // ctx.num_heads)  # (B * W, N, d)
        views = (_heads(t, n, ctx.num_heads) for t, n in ((qkv, 3), (grad_qkv, 3), (grad, 1)))
        for head, ((q, k, v), (grad_q, grad_k, grad_v), (grad_o,)) in enumerate(zip(*views, strict=True)):
            weight = weights[head].flatten(0, 1)
            scale = q.shape[-1] ** -0.5
            used = weight if keep is None else weight * keep[head].flatten(0, 1)
            grad_v.copy_(torch.bmm(used.transpose(1, 2), grad_o, out=product))
            torch.bmm(grad_o, v.transpose(1, 2), out=score)
            if keep is not None:
                score.mul_(keep[head].flatten(0, 1))
            torch.ops.aten._softmax_backward_data.out(score, weight, -1, weight.dtype, grad_input=score)
            torch.sum(score, 0, out=grad_bias[head])
            grad_q.copy_(torch.baddbmm(product, score, k, beta=0, alpha=scale, out=product))
            grad_k.copy_(torch.baddbmm(product, score.transpose(1, 2), q, beta=0, alpha=scale, out=product))
        return grad_qkv, grad_bias, None, None, None


def _heads(x: Tensor, parts: int, num_heads: int) -> list[tuple[Tensor, ...]]:
    """Views ``(B * W, N, d)`` of ``x (..., N, parts * C)``: for each head one per part (q, k, v)."""
    x = x.flatten(0, -3).unflatten(-1, (parts, num_heads, -1))  # (B * W, N, parts, h, d)
    return [tuple(x[:, :, part, head] for part in range(parts)) for head in range(num_heads)]
