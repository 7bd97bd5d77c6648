"""Window attention on a CPU while the position bias learns, by explicit matrix products.

PyTorch's fused kernel gives a bias no gradient on a CPU. Many windows of float32 are computed head by head, on views of
the projection; few, and those of bfloat16, whose products would copy each view, all heads at once on a copy. Both give
equal results. A compiler does not see into these functions (:func:`compiled_learning_bias`), as the kernels that it
would write itself are slower.

Shapes: ``B`` batch, ``W`` windows a map, ``N`` tokens a window, ``h`` heads, ``d`` channels a head, ``C = h d``.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_MANY_SCORES = 80_000  # of one head


class LearningBiasAttention(torch.autograd.Function):
    """Window attention by explicit matrix products, with a gradient for the bias."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
    ) -> Tensor:
        """Attend, as :func:`attend` does; returns ``(B, W, N, C)``."""
        out, weights = attend(qkv, bias, mask, keep, num_heads)
        ctx.save_for_backward(qkv, weights, keep)
        ctx.num_heads = num_heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of ``qkv`` and ``bias``."""
        qkv, weights, keep = ctx.saved_tensors
        return *attend_backward(grad, qkv, weights, keep, ctx.num_heads), None, None, None


def attend(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    """Attend within windows by explicit matrix products.

    Args:
        qkv: ``(B, W, N, 3 C)``.
        bias: ``(h, N, N)``.
        mask: ``(W, N, N)``.
        keep: ``(h, B, W, N, N)``, what dropout multiplies the weights with.
        num_heads: ``h``.

    Returns:
        the result ``(B, W, N, C)``, and for :func:`attend_backward` the weights before dropout, ``(h * B * W, N, N)``.
    """
    return (_one_by_one if _has_many_scores(qkv) else _at_once)(qkv, bias, mask, keep, num_heads)


def attend_backward(
    grad: Tensor, qkv: Tensor, weights: Tensor, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of ``qkv`` and ``bias`` of :func:`attend`.

    Args:
        grad: ``(B, W, N, C)``, that of the result.
        qkv: as there.
        weights: as returned there.
        keep: as there.
        num_heads: as there.
    """
    backward = _one_by_one_backward if _has_many_scores(qkv) else _at_once_backward
    return backward(grad, qkv, weights, keep, num_heads)


def _has_many_scores(qkv: Tensor) -> bool:
    batch, windows, tokens, _ = qkv.shape
    return qkv.dtype != torch.bfloat16 and batch * windows * tokens**2 >= _MANY_SCORES


def _at_once(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    batch, windows, tokens, channels = qkv.shape
    q, k, v = _split_heads(qkv, 3, num_heads)
    weights = qkv.new_empty(len(q), tokens, tokens)  # (B * W * h, N, N)
    # beta=0 ignores the first argument; the scale costs nothing inside the product
    torch.baddbmm(weights, q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5, out=weights)
    weights.view(batch, windows, num_heads, tokens, tokens).add_(bias if mask is None else bias + mask.unsqueeze(1))
    torch.softmax(weights, -1, out=weights)
    out = torch.bmm(_dropped(weights, keep), v).view(-1, num_heads, tokens, q.shape[-1])
    return out.transpose(1, 2).reshape(batch, windows, tokens, channels // 3), weights


def _at_once_backward(
    grad: Tensor, qkv: Tensor, weights: Tensor, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    q, k, v = _split_heads(qkv, 3, num_heads)
    (grad,) = _split_heads(grad, 1, num_heads)
    out = qkv.new_empty(3, *q.shape)
    scale = q.shape[-1] ** -0.5
    torch.bmm(_dropped(weights, keep).transpose(1, 2), grad, out=out[2])
    score = _dropped(torch.bmm(grad, v.transpose(1, 2)), keep)
    torch.ops.aten._softmax_backward_data.out(score, weights, -1, weights.dtype, grad_input=score)
    torch.baddbmm(out[0], score, k, beta=0, alpha=scale, out=out[0])
    torch.baddbmm(out[1], score.transpose(1, 2), q, beta=0, alpha=scale, out=out[1])
    grad_qkv = out.unflatten(1, (-1, num_heads)).permute(1, 3, 0, 2, 4).reshape(qkv.shape)
    return grad_qkv, score.unflatten(0, (-1, num_heads)).sum(0)


def _split_heads(x: Tensor, parts: int, num_heads: int) -> Tensor:
    """Copy ``x (B, W, N, parts * C)`` to ``(parts, B * W * h, N, d)``."""
    x = x.flatten(0, 1).unflatten(-1, (parts, num_heads, -1))  # (B * W, N, parts, h, d)
    return x.permute(2, 0, 3, 1, 4).flatten(1, 2)


def _dropped(weights: Tensor, keep: Tensor | None) -> Tensor:
    """Apply dropout ``(h, B, W, N, N)`` to ``(B * W * h, N, N)``."""
    return weights if keep is None else weights * keep.permute(1, 2, 0, 3, 4).reshape(weights.shape)


def _one_by_one(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    # Products go to a buffer and are copied from there: PyTorch would multiply into the strided output one window
    # after the other.
    batch, windows, tokens, channels = qkv.shape
    out = qkv.new_empty(batch * windows, tokens, channels // 3)
    weights = qkv.new_empty(num_heads, batch, windows, tokens, tokens)
    product = out.new_empty(*out.shape[:2], out.shape[2] // num_heads)  # (B * W, N, d)
    for head, ((q, k, v), o) in enumerate(zip(_heads(qkv, 3, num_heads), _heads(out, 1, num_heads), strict=True)):
        score = weights[head].flatten(0, 1)  # (B * W, N, N)
        torch.baddbmm(score, q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5, out=score)
        weights[head].add_(bias[head] if mask is None else bias[head] + mask)
        torch.softmax(score, -1, out=score)
        o[0].copy_(torch.bmm(score if keep is None else score * keep[head].flatten(0, 1), v, out=product))
    return out.view(batch, windows, tokens, -1), weights.flatten(0, 2)


def _one_by_one_backward(
    grad: Tensor, qkv: Tensor, weights: Tensor, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    """All heads share one score tensor."""
    grad, weights = grad.contiguous(), weights.unflatten(0, (num_heads, -1))
    grad_qkv = torch.empty_like(qkv)
    grad_bias = weights.new_empty(num_heads, *weights.shape[2:])
    score = torch.empty_like(weights[0])  # (B * W, N, N)
    product = grad.new_empty(*score.shape[:2], grad.shape[-1] // num_heads)  # (B * W, N, d)
    views = (_heads(t, n, num_heads) for t, n in ((qkv, 3), (grad_qkv, 3), (grad, 1)))
    for head, ((q, k, v), (grad_q, grad_k, grad_v), (grad_o,)) in enumerate(zip(*views, strict=True)):
        weight = weights[head]
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
    return grad_qkv, grad_bias


def _heads(x: Tensor, parts: int, num_heads: int) -> list[tuple[Tensor, ...]]:
    """Views ``(B * W, N, d)`` of ``x (..., N, parts * C)``: for each head one per part (q, k, v)."""
    x = x.flatten(0, -3).unflatten(-1, (parts, num_heads, -1))  # (B * W, N, parts, h, d)
    return [tuple(x[:, :, part, head] for part in range(parts)) for head in range(num_heads)]


# --- the same for torch.compile --------------------------------------------------------------------------------------


def compiled_learning_bias(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> Tensor:
    """Attend as :class:`LearningBiasAttention` does, in a model that is compiled."""
    return _attend(qkv, bias, mask, keep, num_heads)[0]


@torch.library.custom_op('florence_mm::learning_bias_attention', mutates_args=())
def _attend(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    return attend(qkv, bias, mask, keep, num_heads)


@_attend.register_fake
def _attend_shapes(
    qkv: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    batch, windows, tokens, channels = qkv.shape
    weights = qkv.new_empty(num_heads * batch * windows, tokens, tokens)
    return qkv.new_empty(batch, windows, tokens, channels // 3), weights


@torch.library.custom_op('florence_mm::learning_bias_attention_backward', mutates_args=())
def _backward(grad: Tensor, qkv: Tensor, weights: Tensor, keep: Tensor | None, num_heads: int) -> tuple[Tensor, Tensor]:
    return attend_backward(grad, qkv, weights, keep, num_heads)


@_backward.register_fake
def _backward_shapes(
    grad: Tensor, qkv: Tensor, weights: Tensor, keep: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qkv), weights.new_empty(num_heads, *weights.shape[1:])


def _save(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    qkv, _, _, keep, ctx.num_heads = inputs
    ctx.save_for_backward(qkv, output[1], keep)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: FunctionCtx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    qkv, weights, keep = ctx.saved_tensors
    return *_backward(grad, qkv, weights, keep, ctx.num_heads), None, None, None


_attend.register_autograd(_gradients, setup_context=_save)
