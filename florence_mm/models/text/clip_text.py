"""The language transformer "similar to CLIP" of Florence (arXiv 2111.11432, section 2.3).

Block, pooling and parameter names are those of the public UniCL code (``UniCL/model/text_encoder/
transformer.py``): pre-norm, QuickGELU, one token per text pooled. Only real tokens are computed: what lies
behind the end of a text changes nothing, so linear layers see the real tokens of the batch in one row after
the other, and attention sees texts padded to the longest one.

For fusion models the tower gives a feature for each token (:class:`CLIPTokenEncoder`). Its weights load as they are:
the mask token, which CLIP does not know, is one row beside its vocabulary.

Shape legend: ``B`` texts, ``T`` context length, ``L`` tokens of the longest text, ``N`` real tokens of the
batch, ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections import OrderedDict

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence_mm.models.base import build_part
from florence_mm.models.generation.cache import CacheStack, KeyValueCache
from florence_mm.models.layers.transformer import TokenLayout, self_attention
from florence_mm.registry import MODELS

ARCHS = {
    'micro': {'embed_dims': 64, 'num_layers': 2, 'num_heads': 2},
    # UniCL's tiny and base models
    'base': {'embed_dims': 512, 'num_layers': 12, 'num_heads': 8},
    # the 12 layers that the paper names, at the width of the public UniCL code: 201.8 M parameters
    'large': {'embed_dims': 1024, 'num_layers': 12, 'num_heads': 16},
    # as MedImageInsight, the public model closest to Florence: 252.2 M, near the 256 M that the paper counts.
    # Inferred: no public file says that it is Florence's.
    'huge': {'embed_dims': 1024, 'num_layers': 16, 'num_heads': 16},
}


class TextAttention(nn.Module):
    """Self-attention with the parameters of ``nn.MultiheadAttention``."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dims, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, layout: TokenLayout, cache: KeyValueCache | None = None) -> Tensor:
        """``(N, C) -> (N, C)``; with a cache the tokens follow those that it holds, and are added."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (N, 3 C)
        return self.out_proj(self_attention(qkv, layout, self.num_heads, cache))


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the GELU of CLIP's weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.silu(1.702 * x) / 1.702


class TextBlock(nn.Module):
    """Pre-norm attention and MLP of four times the width, each with a residual."""

    def __init__(self, embed_dims: int, num_heads: int, act: type[nn.Module], norm_eps: float) -> None:
        super().__init__()
        self.attn = TextAttention(embed_dims, num_heads)
        self.ln_1 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(embed_dims, 4 * embed_dims), act=act(), c_proj=nn.Linear(4 * embed_dims, embed_dims)
            )
        )
        self.ln_2 = nn.LayerNorm(embed_dims, eps=norm_eps)

    def forward(self, x: Tensor, layout: TokenLayout, cache: KeyValueCache | None = None) -> Tensor:
        """``(N, C) -> (N, C)``."""
        x = x + self.attn(self.ln_1(x), layout, cache)
        return x + self.mlp(self.ln_2(x))


@MODELS.register_module()
class CLIPTextTower(BaseModule):
    """Transformer over token ids, pooled at the end token.

    Args:
        arch: ``'micro'``, ``'base'``, ``'large'``, ``'huge'`` or a dict of ``embed_dims``, ``num_layers`` and
            ``num_heads``.
        context_length: longest text in tokens; 77 in CLIP and UniCL.
        vocab_size: number of token ids; the end token must be the largest (``CLIPTokenizer`` sees to it).
        causal: each token sees those before it, as in CLIP; otherwise all tokens of its text, as in
            MedImageInsight.
        act: ``'quick_gelu'`` (CLIP, UniCL) or ``'gelu'``.
        norm_eps: epsilon of the layer norms; 1e-12 in UniCL, 1e-5 in CLIP.
        with_cp: recompute each block in the backward pass instead of keeping its activations.
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): C, the width of the output.

    Raises:
        ValueError: unknown ``arch`` or ``act``, or a width that the heads do not divide.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        context_length: int = 77,
        vocab_size: int = 49408,
        causal: bool = True,
        act: str = 'quick_gelu',
        norm_eps: float = 1e-12,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(arch, str):
            if arch not in ARCHS:
                raise ValueError(f'no text tower named {arch!r}; use one of {", ".join(ARCHS)} or a dict')
            arch = ARCHS[arch]
        if set(arch) != set(ARCHS['base']) or arch['embed_dims'] % arch['num_heads']:
            raise ValueError(
                f'text tower arch {dict(arch)} must have embed_dims, num_layers and num_heads, and num_heads must '
                'divide embed_dims'
            )
        acts = {'quick_gelu': QuickGELU, 'gelu': nn.GELU}
        if act not in acts:
            raise ValueError(f'no activation named {act!r}; use one of {", ".join(acts)}')
        self.embed_dims = dims = arch['embed_dims']
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.causal = causal
        self.with_cp = with_cp
        self.token_embedding = nn.Embedding(vocab_size, dims)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, dims))
        self.resblocks = nn.ModuleList(
            TextBlock(dims, arch['num_heads'], acts[act], norm_eps) for _ in range(arch['num_layers'])
        )
        self.ln_final = nn.LayerNorm(dims, eps=norm_eps)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Normal weights of the standard deviations that CLIP's paper names, zero biases."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        width_std = self.embed_dims**-0.5
        # what is added to the residual stream shrinks with depth
        residual_std = width_std * (2 * len(self.resblocks)) ** -0.5
        for block in self.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width_std)
            nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * self.embed_dims) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
            for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                nn.init.zeros_(layer.bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64. Give them on the CPU, wherever the weights are: they are moved, and an
                accelerator need not be waited for to know the lengths.

        Returns:
            ``(B, C)``, the feature at the first largest id, which is the end token.

        Raises:
            ValueError: ids of another shape, or longer than the context.
        """
        if input_ids.ndim != 2 or input_ids.shape[1] > self.context_length or not input_ids.numel():
            raise ValueError(
                f'input_ids has shape {tuple(input_ids.shape)}; give (texts, tokens) with at least one text and at '
                f'most {self.context_length} tokens'
            )
        ends = input_ids.argmax(1)  # (B,)
        length = int(ends.max()) + 1
        real = torch.arange(length, device=input_ids.device) <= ends[:, None]  # (B, L)
        device = self.positional_embedding.device
        layout = TokenLayout.of(real, self.causal, device)
        x = self.token_embedding(input_ids[:, :length].to(device, non_blocking=True))  # (B, L, C)
        x = self.encode(x, layout)  # (N, C)
        last = ((ends + 1).cumsum(0) - 1).to(device, non_blocking=True)  # (B,) places of the ends among the N
        return self.ln_final(x.index_select(0, last))  # (B, C); the norm is per token, so one a text is enough

    def encode(self, embeddings: Tensor, layout: TokenLayout, cache: CacheStack | None = None) -> Tensor:
        """Add positions and run the blocks.

        Args:
            embeddings: ``(B, L, C)`` of the tokens.
            layout: which of them are real, and whether each sees those behind it.
            cache: keys and values of earlier tokens, after which these stand.

        Returns:
            ``(N, C)``, features of the real tokens before the last norm.
        """
        start = 0 if cache is None else cache.length
        x = layout.pack(embeddings + self.positional_embedding[start : start + layout.length])  # (N, C)
        for number, block in enumerate(self.resblocks):
            if cache is not None:
                x = block(x, layout, cache.layer(number))
            elif self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, use_reentrant=False)
            else:
                x = block(x, layout)
        return x


@MODELS.register_module()
class CLIPTokenEncoder(BaseModule):
    """A feature for each token.

    Args:
        tower: a :class:`CLIPTextTower` (or its config).
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): C.
        context_length (int): longest text in tokens.
        vocab_size (int): V + 1, the mask token included.
    """

    def __init__(self, tower: dict | CLIPTextTower, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.tower = build_part(tower, type='CLIPTextTower')
        self.embed_dims = self.tower.embed_dims
        self.context_length = self.tower.context_length
        self.vocab_size = self.tower.vocab_size + 1
        self.mask_embedding = nn.Parameter(torch.empty(self.embed_dims))
        nn.init.normal_(self.mask_embedding, std=0.02)

    def forward(self, input_ids: Tensor, mask: Tensor, causal: bool = False, cache: CacheStack | None = None) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64, best on the CPU. V stands for the mask token.
            mask: ``(B, T)`` bool, True where a token is real; padding behind the tokens.
            causal: each token sees itself and those before it; a tower that was built causal is so anyway.
            cache: keys and values of earlier tokens of the texts, to which those of these tokens, none of them padding,
                are added; only with ``causal``.

        Returns:
            ``(B, T, C)``, zeros where no token is.

        Raises:
            ValueError: more tokens than the tower has positions.
        """
        length = input_ids.shape[1] + (cache.length if cache is not None else 0)
        if length > self.context_length:
            raise ValueError(
                f'texts have {length} tokens and the text tower takes {self.context_length}; lower '
                'max_text_len of the model or raise context_length of the tower'
            )
        if cache is None:
            layout = TokenLayout.of(mask, causal or self.tower.causal, self.mask_embedding.device)
        else:
            layout = TokenLayout(*input_ids.shape, causal=True)
        input_ids = input_ids.to(self.mask_embedding.device, non_blocking=True)
        masked = input_ids == self.tower.vocab_size  # (B, T)
        x = self.tower.token_embedding(input_ids.masked_fill(masked, 0))  # (B, T, C)
        # always through the mask's row, so that it has a gradient, if of zeros, on every process
        x = torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)
        return layout.pad(self.tower.ln_final(self.tower.encode(x, layout, cache)))
