"""The Q-Former of BLIP-2: learned queries that read an image, in one stack of layers with a text (arXiv 2301.12597).

The layers are BERT's. Queries stand before the text; they have an MLP of their own, and they alone attend to the image,
in every second layer. What sees what decides the mode (section 3.1 and figure 2 of the paper): queries and text apart,
all of both, or queries before a text that is written.

Shape legend: ``U`` images, ``B`` texts, ``Q`` queries, ``S`` image tokens, ``T`` text tokens, ``C`` hidden size,
``C_v`` width of the image tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.layers.token_layout import layout_of
from florence_mm.ops.attention import dropout

from .stack import LayerStack, StackMemory, TextStack

#: Arguments of a stack that those of its embeddings alone are.
_OF_WORDS = ('vocab_size', 'max_positions', 'position_offset', 'num_types', 'embed_norm_eps', 'words')


class QueryNorm(nn.Module):
    """The layer norm that queries pass where there are no words, named as that of :class:`TextEmbeddings`.

    Args:
        hidden_size: C.
        layer_norm_eps: its epsilon.
        drop_rate: dropout behind it.
    """

    def __init__(self, hidden_size: int, layer_norm_eps: float, drop_rate: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop_rate = drop_rate


class QFormer(BaseModule):
    """Q-Former: queries that read image tokens, alone, with a text, or before one.

    Args:
        image_dims: C_v.
        num_queries: Q; 32 in BLIP-2.
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack`; by default BERT-base's without token
            types, with cross-attention in every second layer.
        reads_texts: have words and the MLP of text tokens; False: neither, as before a language model, which reads
            what the queries make.
        init_cfg: see mmengine.

    Attributes:
        query_tokens (nn.Parameter): ``(1, Q, C)``.
        stack (LayerStack): the layers; a :class:`TextStack` if it reads texts.

    Raises:
        ValueError: there are no queries, or a size does not fit.
    """

    def __init__(
        self,
        image_dims: int,
        num_queries: int = 32,
        text: Mapping[str, Any] | None = None,
        reads_texts: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_queries < 1:
            raise ValueError(f'num_queries of the Q-Former is {num_queries}; give at least 1')
        text = {'hidden_size': 768, 'num_types': 0, 'cross_every': 2, **(text or {})}
        text |= {'cross_attention': True, 'context_dims': image_dims}
        size, std = text['hidden_size'], text.get('init_std', 0.02)
        self.query_tokens = nn.Parameter(torch.randn(1, num_queries, size) * std)
        if reads_texts:
            self.stack: LayerStack = TextStack(**text, lead_mlp=True)
        else:
            norm = QueryNorm(size, text.get('layer_norm_eps', 1e-12), text.get('drop_rate', 0.1))
            layers = {key: value for key, value in text.items() if key not in _OF_WORDS}
            self.stack = LayerStack(**layers, lead_mlp='alone', embeddings=norm)

    @property
    def num_queries(self) -> int:
        """Q."""
        return self.query_tokens.shape[1]

    def queries(self) -> Tensor:
        """The embedded queries ``(1, Q, C)``: without positions, behind the norm of the embeddings."""
        embeddings = self.stack.embeddings
        rate = embeddings.drop_rate if self.training else 0.0
        return dropout(embeddings.LayerNorm(self.query_tokens), rate)

    def read(self, image_tokens: Tensor) -> tuple[Tensor, StackMemory]:
        """Let the queries alone read images.

        Args:
            image_tokens: ``(U, S, C_v)``.

        Returns:
            ``(U, Q, C)``, and what a text behind the queries sees of them, the memory for :meth:`write`.
        """
        queries = self.queries().expand(len(image_tokens), -1, -1)
        return self.stack.read_prefixes(queries, self.stack.contexts(image_tokens, queries=self.num_queries))

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Let queries read images with texts; all queries and text tokens of a pair see each other.

        Args:
            text_tokens: ``(B, T, C)``, embedded.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None: all are.
            image_tokens: ``(B, S, C_v)``.

        Returns:
            ``(B, Q, C)`` and ``(B, T, C)``, zeros at padding.
        """
        count, (rows, length) = self.num_queries, text_tokens.shape[:2]
        tokens = torch.cat([self.queries().expand(rows, -1, -1), text_tokens], 1)  # (B, Q + T, C)
        if text_mask is not None:
            text_mask = torch.cat([text_mask.new_ones(rows, count), text_mask], 1)
        layout = layout_of(tokens, text_mask)
        memory = self.stack.contexts(image_tokens, queries=count)
        x = layout.pad(self.stack.run(layout.pack(tokens), layout, memory=memory, lead=count))
        return x.split([count, length], 1)
