"""The text tower of CLIP and UniCL as a source of token features, for fusion models.

The tower's weights load as they are: the mask token, which CLIP does not know, is one row beside its vocabulary.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels, ``V`` ids of the tower.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.base import build_part
from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.registry import MODELS

from .clip_text import CLIPTextTower


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
