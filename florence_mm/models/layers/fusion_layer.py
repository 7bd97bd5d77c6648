"""The transformer layer that fusion, writing and question models share.

It is BERT's decoder layer (post-norm): self-attention, cross-attention to another sequence, MLP. By its options it is
the layer of METER (arXiv 2111.02387), BERT (arXiv 1810.04805), BART (arXiv 1910.13461), GIT (arXiv 2205.14100), BLIP
(arXiv 2201.12086) and BLIP-2's Q-Former (arXiv 2301.12597).

Shape legend: ``B`` sequences, ``L`` tokens per sequence (``S`` of the other sequence), ``N`` real tokens of the batch,
``C`` channels, ``H`` heads, ``D = C / H``, ``U`` prefixes.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from florence_mm.models.generation.cache import KeyValueCache
from florence_mm.ops.inference import add_mlp, fast_path_allowed, is_gelu, is_plain, is_untouched

from .token_layout import TokenLayout, layout_of
from .transformer import FEW_ROWS, Context, CrossAttention, KeysValues, PostNorm, SelfAttention, linear_product


class FusionLayer(nn.Module):
    """Transformer layer of tokens that may attend to another sequence: self-attention, cross-attention, MLP.

    Args:
        hidden_size: C.
        num_heads: H.
        mlp_ratio: hidden width of the MLP in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: 1e-12 in METER and BERT, 1e-5 in BART.
        context_dims: channels of the other sequence; None: C.
        cross_attention: attend to another sequence.
        causal_attention: have a second self-attention, used for causal layouts instead of the first, as in BLIP, whose
            encoder and decoder share all but self-attention.
        lead_mlp: have a second MLP, for the leading tokens of each sequence, as in the Q-Former, whose queries are
            before the text. Leading tokens alone attend to the other sequence. ``'alone'``: have no other MLP, as all
            tokens are leading ones.

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
        context_dims: int | None = None,
        cross_attention: bool = True,
        causal_attention: bool = False,
        lead_mlp: bool | Literal['alone'] = False,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f'hidden_size is {hidden_size}, which num_heads={num_heads} does not divide; change one')
        for name, rate in (('drop_rate', drop_rate), ('attn_drop_rate', attn_drop_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} is {rate}; give at least 0 and less than 1')
        rates = (drop_rate, attn_drop_rate, layer_norm_eps)
        self.attention = SelfAttention(hidden_size, num_heads, *rates)
        if causal_attention:
            self.causal_attention = SelfAttention(hidden_size, num_heads, *rates)
        if cross_attention:
            self.crossattention = CrossAttention(hidden_size, num_heads, *rates, context_dims)
        width = int(mlp_ratio * hidden_size)
        if lead_mlp != 'alone':
            self.intermediate, self.output = _make_mlp(hidden_size, width, drop_rate, layer_norm_eps)
        if lead_mlp:
            self.lead_intermediate, self.lead_output = _make_mlp(hidden_size, width, drop_rate, layer_norm_eps)
        self.has_crossattention, self.has_causal_attention = cross_attention, causal_attention
        self.has_lead_mlp = bool(lead_mlp)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
        prefix: int | Tensor = 0,
        lead: int = 0,
    ) -> Tensor:
        """Apply the layer to padded sequences.

        Args:
            x: ``(B, L, C)``, tokens of this sequence.
            context: ``(B, S, context_dims)``, tokens of the other sequence; None skips cross-attention.
            mask: ``(B, L)`` bool, True where a token of ``x`` is real; None: all are.
            context_mask: ``(B, S)`` bool, True where a token of ``context`` is real; None: all are.
            causal: tokens of ``x`` see only themselves and those before them.
            prefix: number of tokens, or ``(B,)`` one of each sequence, that see each other nevertheless.
            lead: number of leading tokens; only with ``lead_mlp``.

        Returns:
            ``(B, L, C)``, zeros at padding.
        """
        layout, context_layout, seen = layout_of(x, mask, causal, prefix), None, None
        if context is not None:
            context_layout = layout_of(context, context_mask)
            packed = context_layout.pack(context)
            seen = self.crossattention.context(packed, context_layout, lead or layout.length)
        return layout.pad(self.step(layout.pack(x), layout, seen, context_layout, lead=lead))

    def step(
        self,
        x: Tensor,
        layout: TokenLayout,
        context: Context | None = None,
        context_layout: TokenLayout | None = None,
        cache: KeyValueCache | None = None,
        prefix: KeysValues | None = None,
        lead: int = 0,
    ) -> Tensor:
        """Apply the layer to packed tokens, ``(N, C)`` to ``(N, C)``.

        Args:
            x: packed tokens of this sequence.
            layout: layout of ``x``.
            context: from ``crossattention.keys_values`` or ``context``; None skips cross-attention.
            context_layout: layout of the other sequence's tokens.
            cache: keys and values of self-attention, for texts generated token by token.
            prefix: keys and values of tokens before the sequences that every token sees, too, from
                :meth:`prefix_step`.
            lead: number of leading tokens; only with ``lead_mlp``.
        """
        own = self.causal_attention if self.has_causal_attention and layout.causal else self.attention
        x = own(x, layout, cache, prefix)
        if lead and lead < layout.length:
            return self._lead(x, layout, context, context_layout, lead)
        if context is not None:
            x = self.crossattention(x, layout, context, context_layout)
        return self._mlp(x, *self._mlp_of(leading=bool(lead)))

    def prefix_step(
        self,
        x: Tensor,
        layout: TokenLayout,
        context: Context | None = None,
        context_layout: TokenLayout | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Apply the layer to the tokens of a prefix ``(N, C)``, which see each other, and return what others see.

        With ``lead_mlp`` they are leading tokens.

        Args:
            x: packed tokens.
            layout: layout of ``x``.
            context: from ``crossattention.keys_values`` or ``context``; None skips cross-attention.
            context_layout: layout of the other sequence's tokens.
        """
        x, keys_values = self.attention.with_keys_values(x, layout)
        if context is not None:
            x = self.crossattention(x, layout, context, context_layout)
        return self._mlp(x, *self._mlp_of(leading=self.has_lead_mlp)), keys_values

    def _mlp_of(self, leading: bool) -> tuple[nn.Sequential, PostNorm]:
        return (self.lead_intermediate, self.lead_output) if leading else (self.intermediate, self.output)

    def _lead(
        self,
        x: Tensor,
        layout: TokenLayout,
        context: Context | None,
        context_layout: TokenLayout | None,
        lead: int,
    ) -> Tensor:
        def of_leads(x: Tensor) -> Tensor:
            if context is not None:
                x = self.crossattention(x, TokenLayout(layout.batch, lead), context, context_layout)
            return self._mlp(x, *self._mlp_of(leading=True))

        if layout.index is None:  # every place is a token, so that no row need be looked for, as no exported file can
            first, rest = x.unflatten(0, (layout.batch, layout.length)).split([lead, layout.length - lead], 1)
            first = of_leads(first.flatten(0, 1)).unflatten(0, (layout.batch, lead))
            rest = self._mlp(rest.flatten(0, 1), *self._mlp_of(leading=False))
            return torch.cat([first, rest.unflatten(0, (layout.batch, layout.length - lead))], 1).flatten(0, 1)
        places = torch.arange(layout.batch * layout.length, device=x.device) % layout.length
        leads = places.index_select(0, layout.index) < lead  # (N,)
        rows, others = leads.nonzero().squeeze(1), (~leads).nonzero().squeeze(1)
        out = torch.zeros_like(x).index_copy(0, rows, of_leads(x.index_select(0, rows)))
        rest = self._mlp(x.index_select(0, others), *self._mlp_of(leading=False))
        return out.index_copy(0, others, rest)

    def _mlp(self, x: Tensor, inner: nn.Sequential, output: PostNorm) -> Tensor:
        if not _is_plain_mlp(inner, output):
            return output(inner(x), x)
        if not self.training and fast_path_allowed(x) and len(x) > FEW_ROWS:
            x = add_mlp(x.clone(), x, inner.dense, output.dense)
            return output.LayerNorm(x)
        return output(inner.act(linear_product(x, inner.dense)), x)


def _make_mlp(hidden_size: int, width: int, drop_rate: float, layer_norm_eps: float) -> tuple[nn.Sequential, PostNorm]:
    inner = nn.Sequential(OrderedDict(dense=nn.Linear(hidden_size, width), act=nn.GELU()))
    return inner, PostNorm(width, hidden_size, drop_rate, layer_norm_eps)


def _is_plain_mlp(inner: nn.Sequential, output: PostNorm) -> bool:
    whole = type(output) is PostNorm and is_gelu(inner.act) and is_untouched(inner, output)
    return whole and is_plain(inner.dense, output.dense)
