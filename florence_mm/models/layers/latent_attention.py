"""The pre-norm block by which a set of vectors of its own length reads tokens: attention, then an MLP.

By its options it is the cross-attend and the self-attend block of Perceiver (arXiv 2103.03206, section 3.1), the
decoder of Perceiver IO (arXiv 2107.14795, section 3.2), and the layer of Flamingo's resampler and its gated
cross-attention (arXiv 2204.14198, sections 2.1 and 2.2, and figure 4):

=========================  ==============================================================================
Perceiver's cross-attend   ``token_dims``, ``qk_channels``, ``v_channels``
its self-attend            ``token_dims=None``
Perceiver IO's decoder     ``query_residual=False`` if a query says where, and the output says what is there
Flamingo's resampler       ``reads_itself=True, bias=False``
its gated cross-attention  ``gated=True, norm_tokens=False, bias=False``
=========================  ==============================================================================

Shape legend: ``B`` sets, ``Q`` queries (latents) of a set, ``C`` their channels, ``S`` tokens, ``K`` keys, ``H`` heads,
``D`` channels of a head.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.ops.attention import attention

from .transformer import KeysValues


class SquaredReLU(nn.Module):
    """Activation ``relu(x) ** 2`` (arXiv 2109.08668), that of Flamingo's new layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return F.relu(x).square()


_ACTS: dict[str, type[nn.Module]] = {'gelu': nn.GELU, 'squared_relu': SquaredReLU}


class LatentAttention(nn.Module):
    """Pre-norm block of queries (latents) that read tokens: cross- or self-attention, and an MLP.

    Args:
        embed_dims: C, channels of the queries and of the output.
        num_heads: H.
        token_dims: channels of the tokens; None: there are no tokens, and the queries read themselves.
        qk_channels: channels of queries and keys, of all heads; None: C.
        v_channels: channels of values, of all heads; None: ``qk_channels``.
        mlp_ratio: hidden width of the MLP in multiples of C.
        reads_itself: the queries are among the keys, behind the tokens, which then have their channels.
        norm_tokens: normalise the tokens.
        query_residual: add the queries to what they have read; the MLP has a residual in any case.
        gated: multiply what attention and MLP add by the tanh of a learned number each. Both are 0 at first, so that
            the block returns its queries.
        bias: whether linear layers have biases.
        act: activation of the MLP, ``'gelu'`` or ``'squared_relu'``.
        attn_drop_rate: dropout of attention weights.
        norm_eps: epsilon of the layer norms.

    Raises:
        ValueError: ``num_heads`` does not divide ``qk_channels`` or ``v_channels``, the activation is unknown, or
            ``reads_itself`` is set for tokens of other channels or for none.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        token_dims: int | None = None,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        mlp_ratio: float = 4,
        reads_itself: bool = False,
        norm_tokens: bool = True,
        query_residual: bool = True,
        gated: bool = False,
        bias: bool = True,
        act: str = 'gelu',
        attn_drop_rate: float = 0.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        qk_channels = qk_channels or embed_dims
        v_channels = v_channels or qk_channels
        for name, channels in (('qk_channels', qk_channels), ('v_channels', v_channels)):
            if channels % num_heads:
                raise ValueError(f'{name} is {channels}, which num_heads={num_heads} does not divide; change one')
        if act not in _ACTS:
            raise ValueError(f'no activation named {act!r}; use one of {", ".join(_ACTS)}')
        if reads_itself and token_dims != embed_dims:
            raise ValueError(
                f'reads_itself is set for queries of {embed_dims} channels and tokens of {token_dims}, which share '
                'keys; give token_dims=embed_dims'
            )
        self.num_heads, self.qk_channels, self.v_channels = num_heads, qk_channels, v_channels
        self.reads_itself, self.query_residual = reads_itself, query_residual
        self.attn_drop_rate = attn_drop_rate
        self.query_norm = nn.LayerNorm(embed_dims, norm_eps)
        reads_tokens = token_dims is not None
        self.token_norm = nn.LayerNorm(token_dims, norm_eps) if reads_tokens and norm_tokens else None
        self.query = nn.Linear(embed_dims, qk_channels, bias)
        self.key_value = nn.Linear(token_dims if reads_tokens else embed_dims, qk_channels + v_channels, bias)
        self.output = nn.Linear(v_channels, embed_dims, bias)
        hidden_dims = int(mlp_ratio * embed_dims)
        self.mlp = nn.Sequential(
            OrderedDict(
                norm=nn.LayerNorm(embed_dims, norm_eps),
                fc1=nn.Linear(embed_dims, hidden_dims, bias),
                act=_ACTS[act](),
                fc2=nn.Linear(hidden_dims, embed_dims, bias),
            )
        )
        self.attn_gate = nn.Parameter(torch.zeros(1)) if gated else None
        self.mlp_gate = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(
        self,
        queries: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        keys_values: KeysValues | None = None,
    ) -> Tensor:
        """Read tokens.

        A query that may read nothing reads exactly zeros, without the bias of the output layer.

        Args:
            queries: ``(B, Q, C)``, or ``(1, Q, C)`` if they are equal for all sets.
            tokens: ``(B, S, token_dims)``; None for queries that read themselves alone, and with ``keys_values``.
            mask: bool, True for tokens that may be read, ``(B, S)``, or ``(B, Q, S)`` if it differs between queries;
                None: all. Without tokens, the same of the queries. Queries among the keys are read always.
            keys_values: keys and values of the tokens, from :meth:`keys_values`.

        Returns:
            ``(B, Q, C)``.
        """
        read = self.read(queries, tokens, mask, keys_values)
        if self.attn_gate is not None:
            read = read * self.attn_gate.tanh()
        x = queries + read if self.query_residual else read
        added = self.mlp(x)
        return x + (added if self.mlp_gate is None else added * self.mlp_gate.tanh())

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Compute keys ``(B, H, S, D)`` and values of tokens ``(B, S, token_dims)``; they can be reused for them."""
        return self._split(tokens if self.token_norm is None else self.token_norm(tokens))

    def read(
        self,
        queries: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        keys_values: KeysValues | None = None,
    ) -> Tensor:
        """Return what queries read, ``(B, Q, C)``, before gate and residual; arguments as of :meth:`forward`."""
        normed = self.query_norm(queries)
        query = self.query(normed).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B or 1, H, Q, D)
        if keys_values is None:
            keys_values = self._split(normed) if tokens is None else self.keys_values(tokens)
        key, value = keys_values  # (B, H, S, D)
        if mask is not None:
            mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]  # (B, 1, Q or 1, S)
        if self.reads_itself:
            own = (x.expand(key.shape[0], -1, -1, -1) for x in self._split(normed))
            key, value = (torch.cat(both, 2) for both in zip((key, value), own, strict=True))  # (B, H, K, D), K = S + Q
            mask = None if mask is None else F.pad(mask, (0, normed.shape[1]), value=True)
        reads = None
        if mask is not None:
            reads = mask.any(-1)  # (B, 1, Q or 1)
            mask = mask | ~reads[..., None]  # attention over nothing is not defined
        rate = self.attn_drop_rate if self.training else 0.0
        x = attention(query.expand(key.shape[0], -1, -1, -1), key, value, mask, dropout_p=rate)  # (B, H, Q, D)
        x = self.output(x.transpose(1, 2).flatten(2))  # (B, Q, H, D) -> (B, Q, C)
        return x if reads is None else x.masked_fill(~reads.transpose(1, 2), 0.0)

    def _split(self, normed: Tensor) -> KeysValues:
        key, value = self.key_value(normed).split((self.qk_channels, self.v_channels), -1)
        key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (key, value))
        return key, value  # (B, H, S, D) each
