"""The pre-norm transformer block of CLIP's text and image towers.

Parameters are named as in the public code of CLIP and UniCL. Tokens are packed and attention sees sequences padded to
the longest, see :mod:`.transformer`.

Shape legend: ``N`` real tokens of the batch, ``B`` sequences, ``L`` tokens of a sequence, ``C`` channels, ``H``
heads, ``D = C / H``.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_mm.models.generation.cache import KeyValueCache
from florence_mm.ops.attention import attention
from florence_mm.ops.inference import (
    add_mlp,
    fast_path_allowed,
    few_rows_linear,
    is_gelu,
    is_plain,
    is_recorded,
    is_untouched,
    quick_gelu,
    rows_product,
)
from florence_mm.ops.recomputed import norm_linear, norm_mlp, recomputing_allowed, trained_linear

from .token_layout import LastTokens, TokenLayout
from .transformer import FEW_ROWS, self_attention


class QuickGELU(nn.Module):
    """Activation ``x * sigmoid(1.702 x)``, the approximate GELU of CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return quick_gelu(x)


#: Activations of the towers by name.
ACTS: dict[str, type[nn.Module]] = {'quick_gelu': QuickGELU, 'gelu': nn.GELU}


def find_act(act: str) -> type[nn.Module]:
    """Look up an activation by its name, ``'quick_gelu'`` or ``'gelu'``.

    Raises:
        ValueError: there is none of that name.
    """
    if act not in ACTS:
        raise ValueError(f'no activation named {act!r}; use one of {", ".join(ACTS)}')
    return ACTS[act]


class MultiheadSelfAttention(nn.Module):
    """Self-attention with the parameters of ``nn.MultiheadAttention``."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dims, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, layout: TokenLayout, cache: KeyValueCache | None = None) -> Tensor:
        """Attend, packed tokens ``(N, C)`` to ``(N, C)``; with a cache they follow its tokens and are appended."""
        qkv = rows_product(x, self.in_proj_weight, self.in_proj_bias)  # (N, 3 C)
        return few_rows_linear(self_attention(qkv, layout, self.num_heads, cache), self.out_proj)

    def of_norm(self, x: Tensor, norm: nn.LayerNorm, layout: TokenLayout) -> Tensor:
        """Attend among the norm of packed tokens ``(N, C)`` in training, to ``(N, C)``."""
        qkv = norm_linear(x, norm, self.in_proj_weight, self.in_proj_bias)  # (N, 3 C)
        return trained_linear(self_attention(qkv, layout, self.num_heads), self.out_proj)

    def from_one(self, one: Tensor, x: Tensor, layout: TokenLayout, mask: Tensor | None = None) -> Tensor:
        """Attend from one token of each sequence alone, ``(B, C)`` to ``(B, C)``.

        Args:
            one: ``(B, C)``, those tokens.
            x: ``(N, C)``, packed tokens of the sequences.
            layout: layout of ``x``.
            mask: ``(B, 1, 1, L)`` bool, True where a token may be seen; None: all.
        """
        dims = x.shape[1]
        query = F.linear(one, self.in_proj_weight[:dims], self.in_proj_bias[:dims])  # (B, C)
        query = query.unflatten(1, (self.num_heads, 1, -1))  # (B, H, 1, D)
        key_value = layout.pad(F.linear(x, self.in_proj_weight[dims:], self.in_proj_bias[dims:]))  # (B, L, 2 C)
        key, value = key_value.unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D) each
        return self.out_proj(attention(query, key, value, mask).flatten(1))


class LayerScale(nn.Module):
    """Learned factor of each channel (arXiv 2103.17239).

    Args:
        embed_dims: C.
        init_value: initial value of the factors.
    """

    def __init__(self, embed_dims: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dims,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(..., C)``."""
        return x * self.gamma


class PreNormBlock(nn.Module):
    """Pre-norm block: self-attention, then an MLP, each with a residual.

    Args:
        embed_dims: C.
        num_heads: number of heads.
        act: activation of the MLP, one of ``ACTS``.
        norm_eps: epsilon of the layer norms.
        hidden_dims: hidden width of the MLP; None: 4 C.
        layer_scale_init_value: initial value of the layer scales of open_clip's towers; None: there are none.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        act: type[nn.Module],
        norm_eps: float,
        hidden_dims: int | None = None,
        layer_scale_init_value: float | None = None,
    ) -> None:
        super().__init__()
        hidden_dims = 4 * embed_dims if hidden_dims is None else hidden_dims
        self.attn = MultiheadSelfAttention(embed_dims, num_heads)
        self.ln_1 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(embed_dims, hidden_dims), act=act(), c_proj=nn.Linear(hidden_dims, embed_dims))
        )
        self.ln_2 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.ls_1 = self.ls_2 = None
        if layer_scale_init_value is not None:
            self.ls_1, self.ls_2 = (LayerScale(embed_dims, layer_scale_init_value) for _ in range(2))

    def forward(
        self,
        x: Tensor,
        layout: TokenLayout,
        cache: KeyValueCache | None = None,
        first_only: bool = False,
        last: LastTokens | None = None,
    ) -> Tensor:
        """Apply the block to packed tokens, ``(N, C)`` to ``(N, C)``.

        With ``first_only``, for sequences without padding, the output of the first token of each is computed alone,
        ``(B, C)``, and with ``last`` that of the last token of each.
        """
        recomputing = self._recomputes(x)
        act = 'gelu' if type(self.mlp.act) is nn.GELU else 'quick_gelu'
        if first_only:
            normed = self.ln_1(x)
            attended = self.attn.from_one(layout.pad(normed)[:, 0], normed, layout)  # (B, C)
            x = layout.pad(x)[:, 0]
        elif last is not None:
            normed = self.ln_1(x)
            attended = self.attn.from_one(normed.index_select(0, last.rows), normed, layout, last.mask)  # (B, C)
            x = x.index_select(0, last.rows)
        elif recomputing and cache is None:
            attended = self.attn.of_norm(x, self.ln_1, layout)
        else:
            attended = self.attn(self.ln_1(x), layout, cache)
        x = x + (attended if self.ls_1 is None else self.ls_1(attended))
        if recomputing:
            branch = norm_mlp(x, self.ln_2, self.mlp.c_fc, self.mlp.c_proj, act)
            return x + (branch if self.ls_2 is None else self.ls_2(branch))
        if self.ls_2 is not None:
            return x + self.ls_2(self.mlp(self.ln_2(x)))
        # while recorded, the number of rows may be free
        if is_recorded() or len(x) <= FEW_ROWS or not fast_path_allowed(x) or not self._has_plain_mlp():
            return x + self.mlp(self.ln_2(x))
        return add_mlp(x, self.ln_2(x), self.mlp.c_fc, self.mlp.c_proj, act)

    def _recomputes(self, x: Tensor) -> bool:
        """Whether the block trains by :mod:`florence_mm.ops.recomputed`, which reads the weights of its layers."""
        if not self.training or type(self.attn) is not MultiheadSelfAttention or not self._has_plain_mlp():
            return False
        return self.training and recomputing_allowed(x, self, self.ln_1, self.ln_2, self.attn.out_proj)

    def _has_plain_mlp(self) -> bool:
        mlp, act = self.mlp, self.mlp.act
        known = is_gelu(act) or (type(act) is QuickGELU and is_untouched(act))
        return known and is_untouched(mlp, self.ln_2) and is_plain(mlp.c_fc, mlp.c_proj)


def init_blocks(blocks: Iterable[PreNormBlock], embed_dims: int) -> None:
    """Initialise blocks with normal weights, with the standard deviations of CLIP's paper, and zero biases."""
    blocks = list(blocks)
    width_std = embed_dims**-0.5
    # layers that add to the residual stream are scaled down with depth
    residual_std = width_std * (2 * len(blocks)) ** -0.5
    for block in blocks:
        nn.init.normal_(block.attn.in_proj_weight, std=width_std)
        nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * embed_dims) ** -0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
        for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
            nn.init.zeros_(layer.bias)
