"""Post-norm attention of packed tokens, as in BERT: self-attention and cross-attention, with residual and norm.

Parameters are named as in transformers' ``BertLayer``, except that queries, keys and values are one linear layer. What
sees what is said by a :class:`~florence_mm.models.layers.token_layout.TokenLayout`; the layer made of these parts is
:class:`~florence_mm.models.layers.fusion_layer.FusionLayer`.

Shape legend: ``B`` sequences, ``L`` tokens per sequence (``S`` of the other sequence), ``N`` real tokens of the batch
(``M`` of the other), ``P`` tokens in a cache, ``C`` channels, ``H`` heads, ``D = C / H``, ``U`` contexts or prefixes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.generation.cache import KeyValueCache, causal_mask
from florence_mm.moved import moved_names
from florence_mm.ops.attention import attention, dropout, prefixed_attention
from florence_mm.ops.folded_attention import folded_attention
from florence_mm.ops.inference import few_rows_linear, is_plain, is_recorded, is_traced
from florence_mm.ops.recomputed import fastest_linear

from .shared_tokens import attend_once
from .token_layout import TokenLayout

__getattr__ = moved_names(
    __name__,
    {
        'CoAttentionLayer': 'florence_mm.models.layers.fusion_layer:FusionLayer',
        **dict.fromkeys(('LastTokens', 'layout_of'), 'florence_mm.models.layers.token_layout'),
    },
)

#: Most rows of an MLP's input for which working in place is not faster: a token of a few texts.
FEW_ROWS = 32
#: Keys and values of attention, ``(B, H, S, D)`` each.
KeysValues = tuple[Tensor, Tensor]
#: What cross-attention reads: keys and values, or the tokens ``(B, S, C)`` of which it would make them.
Context = KeysValues | Tensor
_FEWER = 1.4  # times fewer multiplications, as smaller products take longer for each
_SAVED = 2**22  # multiplications of a set, below which further operations cost more


def linear_product(x: Tensor, linear: nn.Linear) -> Tensor:
    """Compute ``linear(x)`` of ``(N, C)``, in training and in inference by what is fastest there."""
    return fastest_linear(x, linear) if linear.training else few_rows_linear(x, linear)


def folding_pays(queries: int, tokens: int, num_heads: int, layer: nn.Linear) -> bool:
    """Whether queries read tokens faster themselves than by their keys and values, read this once.

    Args:
        queries: L.
        tokens: S.
        num_heads: H.
        layer: the layer of keys and values, ``C`` to ``2 H D``.
    """
    channels, both = layer.in_features, layer.out_features
    projected = tokens * both * (channels + queries)
    folded = queries * both * channels + 2 * num_heads * queries * tokens * channels
    return projected >= _FEWER * folded and projected - folded >= _SAVED


def folding_allowed(tokens: Tensor, layer: nn.Linear) -> bool:
    """Whether a layer may be folded: eagerly on a CPU, in float32 or float64, and nobody has touched it.

    In narrow types the folded queries would be rounded once more; on accelerators fused attention of projected keys
    needs less memory.
    """
    weight = layer.weight if is_plain(layer) else None
    return (
        weight is not None
        and tokens.device.type == weight.device.type == 'cpu'
        and tokens.dtype == weight.dtype
        and tokens.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled('cpu')
        and not is_recorded()
    )


class PostNorm(nn.Module):
    """Linear layer, dropout, residual, layer norm.

    Args:
        in_features: channels of the input.
        hidden_size: C, channels of residual and output.
        drop_rate: dropout before the residual.
        layer_norm_eps: epsilon of the layer norm.
    """

    def __init__(self, in_features: int, hidden_size: int, drop_rate: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Compute ``(N, C)`` from ``x (N, in_features)`` and ``residual (N, C)``."""
        x = linear_product(x, self.dense)
        return self.LayerNorm(dropout(x, self.drop_rate if self.training else 0.0) + residual)


def self_attention(
    qkv: Tensor,
    layout: TokenLayout,
    num_heads: int,
    cache: KeyValueCache | None = None,
    dropout_p: float = 0.0,
    prefix: KeysValues | None = None,
) -> Tensor:
    """Multi-head self-attention of packed tokens.

    Args:
        qkv: ``(N, 3 C)``, queries, keys and values.
        layout: layout of the tokens.
        num_heads: H.
        cache: keys and values of earlier tokens; those of ``qkv``, which follow them without padding, are appended.
        dropout_p: dropout probability of the attention weights.
        prefix: keys and values ``(U, H, S, D)`` of tokens before the sequences that each token sees, too; each prefix
            has equally many consecutive sequences.

    Returns:
        ``(N, C)``.
    """
    if layout.shared is not None:
        return attend_once(qkv, layout.shared, num_heads)
    qkv = split_heads(qkv, layout, 3, num_heads)  # (3, B, H, L, D)
    mask, causal = layout.mask, layout.causal
    if cache is not None and cache.length:
        mask, causal = causal_mask(layout.length, cache.length + layout.length, qkv.device), False
    # (B, H, P + L, D) each
    keys, values = qkv[1:] if cache is None else cache.append(qkv[1:])
    if prefix is None:
        return join_heads(attention(qkv[0], keys, values, mask, causal, dropout_p), layout)
    return join_heads(prefixed_attention(qkv[0], keys, values, *prefix, mask, causal, dropout_p), layout)


class SelfAttention(nn.Module):
    """Multi-head self-attention, with its output layer, residual and norm.

    Args:
        hidden_size: C.
        num_heads: H.
        drop_rate: dropout before the residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: epsilon of the layer norm.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, drop_rate: float, attn_drop_rate: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def forward(
        self,
        x: Tensor,
        layout: TokenLayout,
        cache: KeyValueCache | None = None,
        prefix: KeysValues | None = None,
    ) -> Tensor:
        """Attend, packed tokens ``(N, C)`` to ``(N, C)``; see :func:`self_attention`."""
        rate = self.attn_drop_rate if self.training else 0.0
        return self.output(self_attention(linear_product(x, self.qkv), layout, self.num_heads, cache, rate, prefix), x)

    def keys_values(self, x: Tensor, layout: TokenLayout) -> KeysValues:
        """Compute keys and values ``(B, H, L, D)`` of packed tokens ``(N, C)`` without their queries, for a prefix."""
        channels = self.qkv.in_features
        if is_plain(self.qkv):
            own = F.linear(x, self.qkv.weight[channels:], self.qkv.bias[channels:])
        else:
            own = self.qkv(x)[:, channels:]
        key, value = split_heads(own, layout, 2, self.num_heads)
        return key, value

    def with_keys_values(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, KeysValues]:
        """Attend as :meth:`forward` does; returns the keys and values ``(B, H, L, D)`` too, for what comes behind."""
        qkv = linear_product(x, self.qkv)
        _, key, value = split_heads(qkv, layout, 3, self.num_heads)
        rate = self.attn_drop_rate if self.training else 0.0
        return self.output(self_attention(qkv, layout, self.num_heads, None, rate), x), (key, value)


class CrossAttention(nn.Module):
    """Multi-head cross-attention to another sequence, with its output layer, residual and norm.

    Args:
        hidden_size: C.
        num_heads: H.
        drop_rate: dropout before the residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: epsilon of the layer norm.
        context_dims: channels of the other sequence; None: C.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        drop_rate: float,
        attn_drop_rate: float,
        layer_norm_eps: float,
        context_dims: int | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(context_dims or hidden_size, 2 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def keys_values(self, context: Tensor, layout: TokenLayout) -> KeysValues:
        """Compute keys and values ``(B, H, S, D)`` of a context ``(M, C)``; they can be reused for the same context."""
        key, value = split_heads(linear_product(context, self.key_value), layout, 2, self.num_heads)
        return key, value

    def context(self, context: Tensor, layout: TokenLayout, queries: int) -> Context:
        """Return what :meth:`forward` reads of a context ``(M, C)`` once: keys and values, or what takes less time.

        That is the padded context ``(B, S, C)`` itself, if the queries are few.

        Args:
            context: packed tokens.
            layout: their layout.
            queries: number of queries that read each context, L times the sequences that share it.
        """
        layer = self.key_value
        if folding_allowed(context, layer) and folding_pays(queries, layout.length, self.num_heads, layer):
            return layout.pad(context)
        return self.keys_values(context, layout)

    def forward(self, x: Tensor, layout: TokenLayout, context: Context, context_layout: TokenLayout) -> Tensor:
        """Attend, packed tokens ``(N, C)`` to ``(N, C)``.

        There may be fewer contexts than sequences. Then each context has equally many consecutive sequences, whose
        queries are multiplied with its keys in one product.

        Args:
            x: packed tokens.
            layout: layout of ``x``.
            context: keys and values of the contexts from :meth:`keys_values`, or what :meth:`context` returns.
            context_layout: layout of the contexts.
        """
        (query,) = split_heads(linear_product(x, self.query), layout, 1, self.num_heads)
        rate = self.attn_drop_rate if self.training else 0.0
        contexts = len(context) if isinstance(context, Tensor) else context[0].shape[0]
        # of an exported model there are as many as sequences, whatever their number
        each = 1 if is_traced() or not contexts else query.shape[0] // contexts
        if each > 1:  # (B, H, L, D) -> (U, B / U, H, L, D) -> (U, H, B / U * L, D)
            query = query.unflatten(0, (contexts, each)).transpose(1, 2).flatten(2, 3)
        if isinstance(context, Tensor):
            attended = folded_attention(query, context, self.key_value, context_layout.mask, rate)
        else:
            attended = attention(query, *context, context_layout.mask, dropout_p=rate)
        if each > 1:
            attended = attended.unflatten(2, (each, -1)).transpose(1, 2).flatten(0, 1)
        return self.output(join_heads(attended, layout), x)

    def weights(self, x: Tensor, layout: TokenLayout, keys: Tensor, context_layout: TokenLayout) -> Tensor:
        """Return the attention weights ``(B, H, L, S)`` of :meth:`forward` without dropout; rows of padding are 0."""
        (query,) = split_heads(self.query(x), layout, 1, self.num_heads)
        scores = query @ keys.transpose(-2, -1) * query.shape[-1] ** -0.5  # (B, H, L, S)
        if context_layout.mask is not None:
            scores = scores.masked_fill(~context_layout.mask, -torch.inf)
        real = layout.pad(x.new_ones(len(x), 1))[:, None]  # (B, 1, L, 1)
        return scores.softmax(-1) * real


def split_heads(x: Tensor, layout: TokenLayout, parts: int, num_heads: int) -> Tensor:
    """Split packed ``(N, parts C)`` into ``(parts, B, H, L, D)``."""
    x = layout.pad(x).unflatten(2, (parts, num_heads, -1))  # (B, L, parts C) -> (B, L, parts, H, D)
    return x.permute(2, 0, 3, 1, 4)  # (parts, B, H, L, D)


def join_heads(x: Tensor, layout: TokenLayout) -> Tensor:
    """Join ``(B, H, L, D)`` to packed ``(N, C)``."""
    return layout.pack(x.transpose(1, 2).flatten(2))  # (B, H, L, D) -> (B, L, C) -> (N, C)
