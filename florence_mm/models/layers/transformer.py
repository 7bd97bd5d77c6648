"""The transformer layer of text encoders and fusion, and the layout of padded batches.

The layer is BERT's decoder layer (post-norm): self-attention, cross-attention to another sequence, MLP. Parameters are
named as in transformers' ``BertLayer``, except that queries, keys and values are one linear layer.

Padding is not computed: linear layers and norms see only the real tokens of a batch, concatenated ("packed"), and
attention sees sequences padded to the longest. Padding masks stay ``(B, 1, 1, L)``.

Shape legend: ``B`` sequences, ``L`` tokens per sequence (``S`` of the other sequence), ``N`` real tokens of the batch
(``M`` of the other), ``P`` tokens in a cache, ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from florence_mm.models.generation.cache import KeyValueCache, causal_mask
from florence_mm.ops.attention import attention, dropout
from florence_mm.ops.inference import (
    add_mlp,
    fast_path_allowed,
    is_gelu,
    is_plain,
    is_recorded,
    is_traced,
    is_untouched,
)

from .shared_tokens import SharedTokens, attend_once, find_beginnings

#: Most rows of an MLP's input for which working in place is not faster: a token of a few texts.
FEW_ROWS = 32
#: Texts of so many tokens must have half in common: what gathering keys and values costs grows with the length.
_SHARING_PAYS = 128


@dataclass(frozen=True)
class TokenLayout:
    """Positions of the real tokens of a padded batch, and its attention mask.

    Attributes:
        batch: B.
        length: L.
        index: ``(N,)`` positions of the real tokens among the ``B * L``; None if all are real.
        mask: ``(B, 1, 1, L)`` bool, True where attention may look; None if no mask is needed.
        causal: each token sees itself and those before it; this hides the padding too, which is at the end.
        rows: ``(B * L,)``, number of each token among the N, where texts that begin alike share tokens; None: none are
            shared.
        shared: these tokens as queries.
    """

    batch: int
    length: int
    index: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False
    rows: Tensor | None = None
    shared: SharedTokens | None = None

    @classmethod
    def of(cls, real: Tensor, causal: bool = False, device: torch.device | str | None = None) -> 'TokenLayout':
        """Make the layout of a padding mask.

        While a model is exported, traced or compiled, padding is computed like tokens, and is not 0 behind :meth:`pad`.

        Args:
            real: ``(B, L)`` bool, True where a token is real. Best on the CPU, as its values are read here, which would
                wait for an accelerator.
            causal: each token sees itself and those before it.
            device: device of the layout; by default that of ``real``.

        Raises:
            ValueError: another shape or type, a sequence without tokens, or with ``causal`` padding before tokens.
        """
        if real.dtype != torch.bool or real.ndim != 2:
            raise ValueError(
                f'the padding mask is {real.dtype} of shape {tuple(real.shape)}; give bool of shape (texts, tokens), '
                'True where a token is real'
            )
        device = real.device if device is None else device
        if is_recorded():  # no size may depend on values
            mask = None if causal else real[:, None, None].to(device, non_blocking=True)
            return cls(*real.shape, mask=mask, causal=causal)
        if not bool(real.any(1).all()):
            raise ValueError('a row of the padding mask has no real token; attention over nothing is not defined')
        if causal and bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise ValueError('the padding mask has padding before tokens; causal attention needs it behind them')
        index = real.flatten().nonzero().squeeze(1)  # (N,)
        if len(index) == real.numel():
            return cls(*real.shape, causal=causal)
        mask = None if causal else real[:, None, None].to(device, non_blocking=True)  # (B, 1, 1, L)
        return cls(*real.shape, index=index.to(device, non_blocking=True), mask=mask, causal=causal)

    @classmethod
    def of_prefixes(cls, ids: Tensor, real: Tensor, device: torch.device | str | None = None) -> 'TokenLayout':
        """Make the layout of a causal encoder that computes what texts have in common at their beginning once.

        A token's feature depends on the tokens up to it alone, so N is the number of different beginnings, and of the
        places at which a text has padding. If texts have little in common, the layout is that of :meth:`of`.

        Args:
            ids: ``(B, L)`` int64, token ids from 0 to ``2**32 - 1``, on the CPU.
            real: ``(B, L)`` bool, True where a token is real; padding is at the end.
            device: device of the layout; by default that of ``ids``.
        """
        device = ids.device if device is None else device
        index, rows = find_beginnings(ids, real)
        if int(real.sum()) < len(index) * (1 + ids.shape[1] / _SHARING_PAYS):
            return cls.of(real, causal=True, device=device)
        shared = SharedTokens(*(x.to(device) for x in SharedTokens.of(index, rows, ids.shape[1])))
        return cls(*ids.shape, index=index.to(device), causal=True, rows=rows.to(device), shared=shared)

    def pad(self, x: Tensor) -> Tensor:
        """Unpack ``(N, C)`` to ``(B, L, C)``, with zeros at padding, or any values if texts share tokens."""
        if self.rows is not None:
            return x.index_select(0, self.rows).view(self.batch, self.length, x.shape[1])
        if self.index is not None:
            x = x.new_zeros(self.batch * self.length, x.shape[1]).index_copy(0, self.index, x)
        return x.view(self.batch, self.length, x.shape[1])

    def pack(self, x: Tensor) -> Tensor:
        """Pack ``(B, L, C)`` to the real tokens ``(N, C)``."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)


class LastTokens(NamedTuple):
    """The last token of each sequence, whose output is wanted alone.

    Attributes:
        rows: ``(B,)`` their numbers among the N.
        mask: ``(B, 1, 1, L)`` bool, True where a token is real; None: all are.
    """

    rows: Tensor
    mask: Tensor | None


def layout_of(x: Tensor, mask: Tensor | None, causal: bool = False) -> TokenLayout:
    """Make the layout of ``x (B, L, C)`` with a padding mask ``(B, L)``, True where a token is real; None: all are."""
    if mask is None:
        return TokenLayout(*x.shape[:2], causal=causal)
    if mask.shape != x.shape[:2]:
        raise ValueError(f'the padding mask has shape {tuple(mask.shape)} and the tokens {tuple(x.shape[:2])}')
    return TokenLayout.of(mask, causal, x.device)


KeysValues = tuple[Tensor, Tensor]


class PostNorm(nn.Module):
    """Linear layer, dropout, residual, layer norm."""

    def __init__(self, in_features: int, hidden_size: int, drop_rate: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Compute ``(N, C)`` from ``x (N, in_features)`` and ``residual (N, C)``."""
        return self.LayerNorm(dropout(self.dense(x), self.drop_rate if self.training else 0.0) + residual)


def self_attention(
    qkv: Tensor, layout: TokenLayout, num_heads: int, cache: KeyValueCache | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Multi-head self-attention of packed tokens.

    Args:
        qkv: ``(N, 3 C)``, queries, keys and values.
        layout: layout of the tokens.
        num_heads: H.
        cache: keys and values of earlier tokens; those of ``qkv``, which follow them without padding, are appended.
        dropout_p: dropout probability of the attention weights.

    Returns:
        ``(N, C)``.
    """
    if layout.shared is not None:
        return attend_once(qkv, layout.shared, num_heads)
    qkv = _split_heads(qkv, layout, 3, num_heads)  # (3, B, H, L, D)
    mask, causal = layout.mask, layout.causal
    if cache is not None and cache.length:
        mask, causal = causal_mask(layout.length, cache.length + layout.length, qkv.device), False
    # (B, H, P + L, D) each
    keys, values = qkv[1:] if cache is None else cache.append(qkv[1:])
    return _join_heads(attention(qkv[0], keys, values, mask, causal, dropout_p), layout)


class SelfAttention(nn.Module):
    """Multi-head self-attention, with its output layer, residual and norm."""

    def __init__(
        self, hidden_size: int, num_heads: int, drop_rate: float, attn_drop_rate: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def forward(self, x: Tensor, layout: TokenLayout, cache: KeyValueCache | None = None) -> Tensor:
        """Attend, packed tokens ``(N, C)`` to ``(N, C)``; see :func:`self_attention`."""
        rate = self.attn_drop_rate if self.training else 0.0
        return self.output(self_attention(self.qkv(x), layout, self.num_heads, cache, rate), x)


class CrossAttention(nn.Module):
    """Multi-head cross-attention to another sequence, with its output layer, residual and norm."""

    def __init__(
        self, hidden_size: int, num_heads: int, drop_rate: float, attn_drop_rate: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def keys_values(self, context: Tensor, layout: TokenLayout) -> KeysValues:
        """Compute keys and values ``(B, H, S, D)`` of a context ``(M, C)``; they can be reused for the same context."""
        key, value = _split_heads(self.key_value(context), layout, 2, self.num_heads)
        return key, value

    def forward(self, x: Tensor, layout: TokenLayout, keys_values: KeysValues, context_layout: TokenLayout) -> Tensor:
        """Attend, packed tokens ``(N, C)`` to ``(N, C)``.

        There may be fewer contexts than sequences. Then each context has equally many consecutive sequences, whose
        queries are multiplied with its keys in one product.
        """
        (query,) = _split_heads(self.query(x), layout, 1, self.num_heads)
        rate = self.attn_drop_rate if self.training else 0.0
        contexts = keys_values[0].shape[0]  # of an exported model there are as many as sequences, whatever their number
        each = 1 if is_traced() else query.shape[0] // contexts
        if each > 1:  # (B, H, L, D) -> (U, B / U, H, L, D) -> (U, H, B / U * L, D)
            query = query.unflatten(0, (contexts, each)).transpose(1, 2).flatten(2, 3)
        attended = attention(query, *keys_values, context_layout.mask, dropout_p=rate)
        if each > 1:
            attended = attended.unflatten(2, (each, -1)).transpose(1, 2).flatten(0, 1)
        return self.output(_join_heads(attended, layout), x)

    def weights(self, x: Tensor, layout: TokenLayout, keys: Tensor, context_layout: TokenLayout) -> Tensor:
        """Return the attention weights ``(B, H, L, S)`` of :meth:`forward` without dropout; rows of padding are 0."""
        (query,) = _split_heads(self.query(x), layout, 1, self.num_heads)
        scores = query @ keys.transpose(-2, -1) * query.shape[-1] ** -0.5  # (B, H, L, S)
        if context_layout.mask is not None:
            scores = scores.masked_fill(~context_layout.mask, -torch.inf)
        real = layout.pad(x.new_ones(len(x), 1))[:, None]  # (B, 1, L, 1)
        return scores.softmax(-1) * real


def _split_heads(x: Tensor, layout: TokenLayout, parts: int, num_heads: int) -> Tensor:
    """Split packed ``(N, parts C)`` into ``(parts, B, H, L, D)``."""
    x = layout.pad(x).unflatten(2, (parts, num_heads, -1))  # (B, L, parts C) -> (B, L, parts, H, D)
    return x.permute(2, 0, 3, 1, 4)  # (parts, B, H, L, D)


def _join_heads(x: Tensor, layout: TokenLayout) -> Tensor:
    return layout.pack(x.transpose(1, 2).flatten(2))  # (B, H, L, D) -> (B, L, C) -> (N, C)


class CoAttentionLayer(nn.Module):
    """Transformer layer of one modality that attends to the other: self-attention, cross-attention, MLP.

    Args:
        hidden_size: C.
        num_heads: H.
        mlp_ratio: hidden width of the MLP in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: 1e-12 in METER and BERT.

    Raises:
        ValueError: ``num_heads`` does not divide ``hidden_size``, or a dropout rate is not in [0, 1).
    """

    def __init__(
        self,
        hidden_size: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_rate: float = 0.1,
        attn_drop_rate: float = 0.1,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f'hidden_size is {hidden_size}, which num_heads={num_heads} does not divide; change one')
        for name, rate in (('drop_rate', drop_rate), ('attn_drop_rate', attn_drop_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} is {rate}; give at least 0 and less than 1')
        rates = (drop_rate, attn_drop_rate, layer_norm_eps)
        self.attention = SelfAttention(hidden_size, num_heads, *rates)
        self.crossattention = CrossAttention(hidden_size, num_heads, *rates)
        width = int(mlp_ratio * hidden_size)
        self.intermediate = nn.Sequential(OrderedDict(dense=nn.Linear(hidden_size, width), act=nn.GELU()))
        self.output = PostNorm(width, hidden_size, drop_rate, layer_norm_eps)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Apply the layer to padded sequences.

        Args:
            x: ``(B, L, C)``, tokens of this modality.
            context: ``(B, S, C)``, tokens of the other modality.
            mask: ``(B, L)`` bool, True where a token of ``x`` is real; None: all are.
            context_mask: ``(B, S)`` bool, True where a token of ``context`` is real; None: all are.
            causal: tokens of ``x`` see only themselves and those before them.

        Returns:
            ``(B, L, C)``, zeros at padding.
        """
        layout, context_layout = layout_of(x, mask, causal), layout_of(context, context_mask)
        context = self.crossattention.keys_values(context_layout.pack(context), context_layout)
        return layout.pad(self.step(layout.pack(x), layout, context, context_layout))

    def step(
        self,
        x: Tensor,
        layout: TokenLayout,
        context: KeysValues | None,
        context_layout: TokenLayout | None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Apply the layer to packed tokens, ``(N, C)`` to ``(N, C)``.

        Args:
            x: packed tokens of this modality.
            layout: layout of ``x``.
            context: keys and values from ``crossattention.keys_values``; None skips cross-attention.
            context_layout: layout of the other modality's tokens.
            cache: keys and values of self-attention, for texts generated token by token.
        """
        x = self.attention(x, layout, cache)
        if context is not None:
            x = self.crossattention(x, layout, context, context_layout)
        return self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        if not self.training and fast_path_allowed(x) and len(x) > FEW_ROWS and self._has_plain_mlp():
            x = add_mlp(x.clone(), x, self.intermediate.dense, self.output.dense)
            return self.output.LayerNorm(x)
        return self.output(self.intermediate(x), x)

    def _has_plain_mlp(self) -> bool:
        inner, output = self.intermediate, self.output
        whole = type(output) is PostNorm and is_gelu(inner.act) and is_untouched(inner, output)
        return whole and is_plain(inner.dense, output.dense)
