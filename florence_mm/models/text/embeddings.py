"""Embeddings of words and positions, with which the layers of a text stack begin.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``S`` tokens before it, ``N`` real tokens of the batch, ``C``
channels.
"""

import torch
from torch import Tensor, nn

from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.ops.attention import dropout


class TextEmbeddings(nn.Module):
    """Embeddings of words and positions, and of BERT's token types, with a layer norm.

    Args:
        vocab_size: number of ids.
        hidden_size: C.
        max_positions: longest text in tokens.
        position_offset: rows of the position table before that of the first token; 2 in BART.
        num_types: token types, of which all tokens have the first; 2 in BERT, 0: none.
        layer_norm_eps: epsilon of the layer norm.
        drop_rate: dropout behind the layer norm.
        words: word embeddings of another stack, which are shared and remain a part of that stack; None: its own.

    Attributes:
        word_embeddings (nn.Embedding): its own word embeddings, or the shared ones.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        max_positions: int,
        position_offset: int,
        num_types: int,
        layer_norm_eps: float,
        drop_rate: float,
        words: nn.Embedding | None = None,
    ) -> None:
        super().__init__()
        if words is None:
            self.word_embeddings = nn.Embedding(vocab_size, hidden_size)
        else:  # past nn.Module, for which it would be a part of this one too
            object.__setattr__(self, 'word_embeddings', words)
        self.position_embeddings = nn.Embedding(max_positions + position_offset, hidden_size)
        self.token_type_embeddings = nn.Embedding(num_types, hidden_size) if num_types else None
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.position_offset, self.drop_rate = position_offset, drop_rate

    def forward(self, input_ids: Tensor, layout: TokenLayout, start: int = 0, before: Tensor | None = None) -> Tensor:
        """Embed tokens to packed ``(N, C)``.

        Args:
            input_ids: ``(B, T)``.
            layout: layout of all tokens, those of ``before`` included.
            start: position of the first token.
            before: ``(B, S, C)``, tokens before the ids in the place of word embeddings, such as those of an image.
        """
        first = start + self.position_offset
        x = self.word_embeddings(input_ids)
        if before is not None:
            x = torch.cat([before.to(x.dtype), x], 1)  # (B, S + T, C)
        x = layout.pack(x + self.position_embeddings.weight[first : first + layout.length])
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings.weight[0]
        return dropout(self.LayerNorm(x), self.drop_rate if self.training else 0.0)
