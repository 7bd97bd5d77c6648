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
from torch.nn import functional as F

from .inference import is_compiling, is_traced
from .learning_bias import LearningBiasAttention, compiled_learning_bias

_STEPS = 1 << 16
#: Most queries of a prefix for which its keys are read once for all, and scores are written out.
_FEW_QUERIES = 16
_WRITTEN_OUT_TOKENS = 64  # of windows whose scores are written out in compiled bf16


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
        mask: bool, True for keys that may be attended to, ``(B, 1, 1, S)``, ``(1, 1, L, S)`` or ``(B, 1, L, S)``; None:
            all. It is not expanded.
        causal: query i attends to keys 0 to i; not together with ``mask``.
        dropout_p: dropout probability of the attention weights.

    Returns:
        ``(B, H, L, D)``.
    """
    if dropout_p == 0 or query.device.type != 'cpu' or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p, is_causal=causal)
    return written_out_attention(query, key, value, mask, causal, dropout_p)


def written_out_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, dropout_p: float = 0.0
) -> Tensor:
    """Compute scaled dot-product attention by two matrix products and a softmax; arguments as of :func:`attention`."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))  # (B, H, L, S)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()  # (L, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.matmul(dropout(scores.softmax(-1), dropout_p), value)


def prefixed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention to keys of a prefix, which several consecutive rows share, and to own keys.

    Args:
        query: ``(B, H, L, D)``.
        key: ``(B, H, P, D)``.
        value: ``(B, H, P, D)``.
        prefix_key: ``(U, H, S, D)``; B is a multiple of U, and each prefix is seen by B / U consecutive rows.
        prefix_value: ``(U, H, S, D)``.
        mask: bool, True for own keys that may be attended to, as of :func:`attention`; None: all.
        causal: query i attends to own keys 0 to i; not together with ``mask``.
        dropout_p: dropout probability of the attention weights.

    Returns:
        ``(B, H, L, D)``.
    """
    batch, _, length, _ = query.shape
    prefixes, _, before, _ = prefix_key.shape
    each = batch // prefixes
    if causal and length > 1:
        mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    if dropout_p == 0 and each * length <= _FEW_QUERIES and query.device.type == 'cpu' and not query.requires_grad:
        return _grouped_attention(query, key, value, prefix_key, prefix_value, mask, each)
    if each > 1:
        prefix_key, prefix_value = (x.repeat_interleave(each, 0) for x in (prefix_key, prefix_value))
    if mask is not None:
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=query.device)
        mask = torch.cat([seen.expand(*mask.shape[:3], before), mask], 3)
    key, value = torch.cat([prefix_key, key], 2), torch.cat([prefix_value, value], 2)
    return attention(query, key, value, mask, dropout_p=dropout_p)


def _grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    mask: Tensor | None,
    each: int,
) -> Tensor:
    """:func:`prefixed_attention` that reads each prefix once, for the few queries of a step of generation."""
    query = query * query.shape[-1] ** -0.5
    length, before = query.shape[2], prefix_key.shape[2]
    # (B, H, L, D) -> (U, B / U, H, L, D) -> (U, H, B / U * L, D)
    grouped = query.unflatten(0, (-1, each)).transpose(1, 2).flatten(2, 3)
    scores = torch.matmul(grouped, prefix_key.transpose(2, 3))  # (U, H, B / U * L, S)
    scores = scores.unflatten(2, (each, length)).transpose(1, 2).flatten(0, 1)  # (B, H, L, S)
    own = torch.matmul(query, key.transpose(2, 3))  # (B, H, L, P)
    if mask is not None:
        own = own.masked_fill(~mask, -torch.inf)
    weights = torch.cat([scores, own], 3).softmax(3)
    grouped = weights[..., :before].unflatten(0, (-1, each)).transpose(1, 2).flatten(2, 3)
    out = torch.matmul(grouped, prefix_value)  # (U, H, B / U * L, D)
    out = out.unflatten(2, (each, length)).transpose(1, 2).flatten(0, 1)  # (B, H, L, D)
    return out + torch.matmul(weights[..., before:], value)


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
        keep = None
        if dropout_p:
            keep = torch.rand(num_heads, batch, windows, tokens, tokens, dtype=qkv.dtype, device=qkv.device)
            keep = keep.ge_(dropout_p).div_(1 - dropout_p)
        attend = compiled_learning_bias if is_compiling() else LearningBiasAttention.apply
        return attend(qkv, bias, mask, keep, num_heads).view(batch, slots, -1)
    if mask is not None:
        bias = bias + mask.unsqueeze(1)  # (h, N, N) or (W, h, N, N), + (W, 1, N, N)
    if on_cpu and is_compiling() and not torch.is_grad_enabled():
        # in bf16 the fused kernel is no faster than in fp32, and products with a fused softmax between them are
        if qkv.dtype == torch.bfloat16 and tokens <= _WRITTEN_OUT_TOKENS:
            return _written_out(qkv, bias, num_heads)
        return compiled_window_attention(qkv, bias, num_heads)
    return _fused(qkv, bias, num_heads, dropout_p)


def _written_out(qkv: Tensor, bias: Tensor, num_heads: int) -> Tensor:
    batch, slots, _ = qkv.shape
    tokens = bias.shape[-1]
    # (B, W, N, 3, h, d) -> three of (B, W, h, N, d)
    q, k, v = qkv.view(batch, slots // tokens, tokens, 3, num_heads, -1).permute(3, 0, 1, 4, 2, 5)
    scores = torch.matmul(q, k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5 + bias.float()  # (B, W, h, N, N)
    out = torch.matmul(scores.softmax(-1).to(v.dtype), v)  # (B, W, h, N, d)
    return out.transpose(2, 3).reshape(batch, slots, -1)


def _fused(qkv: Tensor, bias: Tensor, num_heads: int, dropout_p: float) -> Tensor:
    batch, slots, _ = qkv.shape
    tokens = bias.shape[-1]
    # (B, W, N, 3, h, d) -> three of (B, W, h, N, d)
    q, k, v = qkv.view(batch, slots // tokens, tokens, 3, num_heads, -1).permute(3, 0, 1, 4, 2, 5)
    # by window there is a loop over the images, whose number may be free
    by_window = qkv.device.type == 'cpu' and not is_traced() and not is_compiling()
    out = (_fused_by_window if by_window else _fused_by_head)(q, k, v, bias, dropout_p)
    return out.reshape(batch, slots, -1)


@torch.library.custom_op('florence_mm::window_attention', mutates_args=())
def compiled_window_attention(qkv: Tensor, bias: Tensor, num_heads: int) -> Tensor:
    """Attend within windows on a CPU, without gradients: a compiler calls the fused kernel, as it has no better one.

    Args:
        qkv: ``(B, W * N, 3 C)``.
        bias: ``(h, N, N)``, or ``(W, h, N, N)`` with the mask of shifted windows.
        num_heads: ``h``.

    Returns:
        ``(B, W * N, C)``.
    """
    return _fused(qkv, bias, num_heads, 0.0).contiguous()


@compiled_window_attention.register_fake
def _window_attention_shape(qkv: Tensor, bias: Tensor, num_heads: int) -> Tensor:
    return qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)


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
