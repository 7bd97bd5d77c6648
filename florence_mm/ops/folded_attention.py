"""Cross-attention that folds the layers of keys and values into the queries, for few queries of many tokens.

With ``k = W_k x + b_k`` and ``v = W_v x + b_v``, ``q . k`` is ``(W_k^T q) . x`` and a number that is equal for all
keys, which softmax drops; and the mean of values is ``W_v`` of the mean of tokens, and the bias times the sum of the
weights. So queries can read the tokens themselves, each head in all their channels. The result is that of projected
keys and values, up to rounding; which of the two multiplies less is a matter of shapes.

Shape legend: ``B`` sets of tokens, ``S`` tokens of a set, ``C`` their channels, ``L`` queries of a set, ``H`` heads,
``D`` channels of a head.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .attention import dropout


def folded_attention(
    query: Tensor, tokens: Tensor, layer: nn.Linear, mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Scaled dot-product attention to the keys and values that a layer makes of tokens, without making them.

    Sets are computed one after another, in memory that stays in the cache. For the backward pass the weights of
    attention and the mean tokens are kept, the latter if ``layer`` learns.

    Args:
        query: ``(B, H, L, D)``.
        tokens: ``(B, S, C)``.
        layer: the layer of keys and values; its outputs are ``[k, v]`` times ``[H, D]``.
        mask: bool, True for tokens that may be attended to, ``(B, 1, 1, S)`` or ``(B, 1, L, S)``; None: all.
        dropout_p: dropout probability of the attention weights.

    Returns:
        ``(B, H, L, D)``.
    """
    query = query * query.shape[-1] ** -0.5
    return _FoldedAttention.apply(query, tokens, layer.weight, layer.bias, mask, dropout_p)


class _FoldedAttention(torch.autograd.Function):
    """Attention of scaled queries; the bias of keys has no effect and the gradient 0."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        tokens: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        dropout_p: float,
    ) -> Tensor:
        (batch, heads, length, dims), (_, count, channels) = query.shape, tokens.shape
        of_keys, of_values = weight.unflatten(0, (2, heads, dims))  # (H, D, C) each
        of_value_bias = None if bias is None else bias.unflatten(0, (2, heads, 1, dims))[1]  # (H, 1, D)
        kept = any(ctx.needs_input_grad)
        weights = tokens.new_empty(batch if kept else 1, heads, length, count)  # (B or 1, H, L, S)
        factors = dropout(torch.ones_like(weights.expand(batch, -1, -1, -1)), dropout_p) if dropout_p else None
        means = tokens.new_empty(batch if ctx.needs_input_grad[2] else 1, heads, length, channels)
        out, rows = torch.empty_like(query), tokens.new_empty(heads, length, channels)
        for number in range(batch):
            seen, own = tokens[number], weights[number if kept else 0]
            mean = means[number if len(means) == batch else 0]
            flat = own.view(-1, count)  # (H L, S)
            torch.bmm(query[number], of_keys, out=rows)
            torch.mm(rows.view(-1, channels), seen.t(), out=flat)
            if mask is not None:
                own.masked_fill_(~mask[number], -torch.inf)
            torch.softmax(own, -1, out=own)
            dropped = own if factors is None else own * factors[number]
            torch.mm(dropped.view(-1, count), seen, out=mean.view(-1, channels))
            torch.bmm(mean, of_values.transpose(1, 2), out=out[number])
            if of_value_bias is not None:  # dropped weights do not sum to 1
                out[number] += of_value_bias if factors is None else dropped.sum(-1, keepdim=True) * of_value_bias
        if kept:
            ctx.save_for_backward(query, tokens, weight, bias, weights, factors, means)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, tokens, weight, bias, weights, factors, means = ctx.saved_tensors
        (batch, heads, length, dims), (_, count, channels) = query.shape, tokens.shape
        of_keys, of_values = weight.unflatten(0, (2, heads, dims))
        of_query, of_tokens, of_weight, of_bias = (
            torch.zeros_like(x) if needed else None
            for x, needed in zip((query, tokens, weight, bias), ctx.needs_input_grad[:4], strict=True)
        )
        rows, of_means, of_own = tokens.new_empty(2, heads, length, channels).unbind() + (torch.empty_like(weights[0]),)
        for number in range(batch):
            seen, own, out = tokens[number], weights[number], grad[number]  # (S, C), (H, L, S), (H, L, D)
            factor = None if factors is None else factors[number]
            dropped = own if factor is None else own * factor
            torch.bmm(out, of_values, out=of_means)
            torch.mm(of_means.view(-1, channels), seen.t(), out=of_own.view(-1, count))
            if factor is not None:
                if bias is not None:
                    of_own += (out * bias.unflatten(0, (2, heads, 1, dims))[1]).sum(-1, keepdim=True)
                of_own *= factor
            of_scores = torch._softmax_backward_data(of_own, own, -1, own.dtype)
            if of_tokens is not None:
                torch.bmm(query[number], of_keys, out=rows)
                torch.mm(dropped.view(-1, count).t(), of_means.view(-1, channels), out=of_tokens[number])
                of_tokens[number].addmm_(of_scores.view(-1, count).t(), rows.view(-1, channels))
            if of_weight is not None:
                of_weight.unflatten(0, (2, heads, dims))[1].baddbmm_(out.transpose(1, 2), means[number])
            if of_query is not None or of_weight is not None:
                torch.mm(of_scores.view(-1, count), seen, out=rows.view(-1, channels))
            if of_query is not None:
                torch.bmm(rows, of_keys.transpose(1, 2), out=of_query[number])
            if of_weight is not None:
                of_weight.unflatten(0, (2, heads, dims))[0].baddbmm_(query[number].transpose(1, 2), rows)
            if of_bias is not None:
                summed = out if factor is None else out * dropped.sum(-1, keepdim=True)
                of_bias[heads * dims :] += summed.sum(1).flatten()
        return of_query, of_tokens, of_weight, of_bias, None, None
