"""CLIP's text transformer, as the language encoder of Florence (arXiv 2111.11432, section 2.3: "similar to CLIP").

Blocks, pooling and parameter names are those of the public UniCL code (``UniCL/model/text_encoder/transformer.py``):
pre-norm, QuickGELU, pooling of one token per text. Padding is not computed: linear layers see only the real tokens of
the batch, concatenated ("packed"), and attention sees texts padded to the longest.

For fusion models, :class:`CLIPTokenEncoder` returns a feature per token. CLIP's weights load unchanged: the mask token,
which CLIP lacks, is a separate parameter.

Shape legend: ``B`` texts, ``T`` tokens of the input, ``L`` tokens of the longest text, ``N`` real tokens of the batch,
``C`` channels, ``H`` heads, ``D = C / H``, ``V`` ids of the tower.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.base import build_part
from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.layers.clip_block import PreNormBlock, find_act, init_blocks
from florence_mm.models.layers.token_layout import LastTokens, TokenLayout
from florence_mm.ops.inference import is_recorded
from florence_mm.registry import MODELS

ARCHS = {
    'micro': {'embed_dims': 64, 'num_layers': 2, 'num_heads': 2},
    # UniCL's tiny and base models
    'base': {'embed_dims': 512, 'num_layers': 12, 'num_heads': 8},
    # 12 layers as in the paper, with the width of the public UniCL code: 201.8 M parameters
    'large': {'embed_dims': 1024, 'num_layers': 12, 'num_heads': 16},
    # as in MedImageInsight, the public model closest to Florence: 252.2 M parameters, near the paper's 256 M.
    # Inferred: no public file says that Florence's is the same.
    'huge': {'embed_dims': 1024, 'num_layers': 16, 'num_heads': 16},
}


class TextBlock(PreNormBlock):
    """Block of the text tower, by which ``parallelize.blocks`` names it."""


@MODELS.register_module()
class CLIPTextTower(BaseModule):
    """Text encoder of two-tower models: a transformer on token ids, pooled at the end token.

    Args:
        arch: ``'micro'``, ``'base'``, ``'large'``, ``'huge'`` or a dict of ``embed_dims``, ``num_layers`` and
            ``num_heads``.
        context_length: longest text in tokens; 77 in CLIP and UniCL.
        vocab_size: number of token ids; the end token must be the largest, as in ``CLIPTokenizer``.
        causal: each token sees only itself and those before it, as in CLIP; ``False``: all tokens of its text, as in
            MedImageInsight.
        act: ``'quick_gelu'`` (CLIP, UniCL) or ``'gelu'``.
        norm_eps: epsilon of the layer norms; 1e-12 in UniCL, 1e-5 in CLIP.
        with_cp: recompute each block in the backward pass instead of keeping its activations.
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): C, the width of the output.

    Raises:
        ValueError: ``arch`` or ``act`` is unknown, or ``num_heads`` does not divide ``embed_dims``.
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
        act_layer = find_act(act)
        self.embed_dims = dims = arch['embed_dims']
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.causal = causal
        self.act = act
        self.norm_eps = norm_eps
        self.num_heads = arch['num_heads']
        self.with_cp = with_cp
        self.token_embedding = nn.Embedding(vocab_size, dims)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, dims))
        self.resblocks = nn.ModuleList(
            TextBlock(dims, arch['num_heads'], act_layer, norm_eps) for _ in range(arch['num_layers'])
        )
        self.ln_final = nn.LayerNorm(dims, eps=norm_eps)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Initialise with normal weights, with the standard deviations of CLIP's paper, and zero biases."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        init_blocks(self.resblocks, self.embed_dims)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64, best on the CPU even if the weights are not: their values are read here, which
                would wait for an accelerator.

        Returns:
            ``(B, C)``, the feature of the end token, which is the first largest id.

        Raises:
            ValueError: ``input_ids`` has another shape, or more than ``context_length`` tokens.
        """
        if input_ids.ndim != 2 or input_ids.shape[1] > self.context_length or not input_ids.numel():
            raise ValueError(
                f'input_ids has shape {tuple(input_ids.shape)}; give (texts, tokens) with at least one text and at '
                f'most {self.context_length} tokens'
            )
        ends = input_ids.argmax(1)  # (B,)
        if is_recorded():
            return self._padded(input_ids, ends)
        length = int(ends.max()) + 1
        real = torch.arange(length, device=input_ids.device) <= ends[:, None]  # (B, L)
        device = self.positional_embedding.device
        inferring = not torch.is_grad_enabled()
        if self.causal and inferring and input_ids.device.type == 'cpu':
            # prompts of classes begin alike; without gradients, as captions in training do not
            layout = TokenLayout.of_prefixes(input_ids[:, :length], real, device)
        else:
            layout = TokenLayout.of(real, self.causal, device)
        if layout.rows is not None:
            rows = layout.rows.view(-1, length).gather(1, ends.to(device)[:, None]).squeeze(1)  # (B,)
        else:
            rows = ((ends + 1).cumsum(0) - 1).to(device, non_blocking=True)  # (B,) positions of the ends among the N
        x = self.token_embedding(input_ids[:, :length].to(device, non_blocking=True))  # (B, L, C)
        if inferring:
            mask = None if bool(real.all()) else real[:, None, None].to(device, non_blocking=True)  # (B, 1, 1, L)
            return self.ln_final(self.encode(x, layout, last=LastTokens(rows, mask)))
        x = self.encode(x, layout)  # (N, C)
        return self.ln_final(x.index_select(0, rows))  # (B, C); the norm is per token, so only end tokens need it

    def _padded(self, input_ids: Tensor, ends: Tensor) -> Tensor:
        """Encode texts with their padding, as no size of an exported or compiled model may depend on values."""
        batch, length = input_ids.shape
        mask = None
        if not self.causal:
            mask = (torch.arange(length, device=ends.device) <= ends[:, None])[:, None, None]  # (B, 1, 1, L)
        layout = TokenLayout(batch, length, mask=mask, causal=self.causal)
        x = self.encode(self.token_embedding(input_ids), layout).unflatten(0, (-1, length))  # (B, L, C)
        last = ends[:, None, None].expand(-1, 1, self.embed_dims)
        return self.ln_final(x.gather(1, last).squeeze(1))

    def encode(
        self,
        embeddings: Tensor,
        layout: TokenLayout,
        cache: CacheStack | None = None,
        last: LastTokens | None = None,
    ) -> Tensor:
        """Add position embeddings and apply the blocks.

        Args:
            embeddings: ``(B, L, C)``, token embeddings.
            layout: positions of the real tokens, and the attention mask.
            cache: keys and values of earlier tokens; those of these tokens are appended.
            last: the tokens whose features are wanted, if no others are; not together with ``cache``.

        Returns:
            ``(N, C)``, features of the real tokens before the final norm; with ``last`` ``(B, C)``.
        """
        start = 0 if cache is None else cache.length
        x = layout.pack(embeddings + self.positional_embedding[start : start + layout.length])  # (N, C)
        for number, block in enumerate(self.resblocks):
            if cache is not None:
                x = block(x, layout, cache.layer(number))
            elif self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, use_reentrant=False)
            else:
                x = block(x, layout, last=last if number == len(self.resblocks) - 1 else None)
        return x


@MODELS.register_module()
class CLIPTokenEncoder(BaseModule):
    """Text encoder of fusion models: a feature per token, by CLIP's text tower and a mask token.

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
            input_ids: ``(B, T)`` int64, best on the CPU; V is the id of the mask token.
            mask: ``(B, T)`` bool, True where a token is real; padding is at the end.
            causal: each token sees only itself and those before it; always so if the tower is causal.
            cache: keys and values of earlier tokens of the texts; those of these tokens, without padding, are appended.
                Only with ``causal``.

        Returns:
            ``(B, T, C)``, zeros at padding.

        Raises:
            ValueError: there are more tokens than the tower has positions.
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
        # always uses the mask embedding, so that it has a gradient (of zeros) on every process
        x = torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)
        return layout.pad(self.tower.ln_final(self.tower.encode(x, layout, cache)))
