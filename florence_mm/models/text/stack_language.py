"""A small causal language model of ours, for trying models around language models without files.

Shape legend: ``B`` texts, ``T`` tokens, ``C`` channels, ``V`` words.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.generation.cache import CacheBehind, CacheStack
from florence_mm.registry import MODELS

from .protocol import BeforeLayer, ReadBefore
from .stack import TextStack


@MODELS.register_module()
class StackLanguageModel(BaseModule):
    """A :class:`~florence_mm.models.text.stack.TextStack` whose outputs are tied to its words.

    It implements :class:`~florence_mm.models.text.protocol.LayeredLanguageModel`. :class:`LanguageModeling` trains it,
    and :class:`FlorenceFlamingo` puts its blocks before its layers.

    Args:
        stack: arguments of the stack.
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): C, of words and hidden states.
        layer_dims (int): the same, of the layers.
        num_layers (int): number of layers.
        vocab_size (int): V.
        context_length (int): longest text in tokens.
        encodes (bool): False, there is no encoder.
    """

    encodes = False

    def __init__(self, stack: Mapping[str, Any], init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.stack = TextStack(**{'num_types': 0, **stack})
        self.embed_dims = self.layer_dims = self.stack.embed_dims
        self.num_layers, self.vocab_size = len(self.stack.layers), self.stack.vocab_size
        self.context_length = self.stack.context_length

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Its word embeddings."""
        return self.stack.embeddings.word_embeddings

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, C)``."""
        words = self.word_embeddings
        return words(input_ids.to(words.weight.device, non_blocking=True))

    def read(self, tokens: Tensor, mask: Tensor | None = None) -> ReadBefore:
        """Keep embeddings ``(B, S, C)`` that stand before texts as they are; there is no encoder."""
        return ReadBefore(tokens.to(self.word_embeddings.weight.dtype))

    def cache(self, before: ReadBefore | None = None) -> CacheBehind:
        """Make a cache for texts behind what was read; None: behind nothing."""
        return CacheBehind(CacheStack(), 0 if before is None else before.length)

    def next_logits(
        self, input_ids: Tensor, before: ReadBefore | None = None, cache: CacheBehind | None = None
    ) -> Tensor:
        """Compute the logits ``(B, T, V)`` of what follows each token, see the protocol."""
        x = self.embed(input_ids)
        x = x if before is None else before.precede(x, cache)  # (B, S + T, C)
        return self.logits(self.run(x, cache)[:, -input_ids.shape[1] :])

    def outputs(self) -> Tensor:
        """Weights ``(V, C)`` by which hidden states give logits of words, those of ``word_embeddings``."""
        return self.word_embeddings.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits of words ``(..., V)`` from hidden states ``(..., C)``."""
        return F.linear(hidden, self.outputs())

    def run(
        self, embedded: Tensor, cache: CacheBehind | None = None, before_layer: BeforeLayer | None = None
    ) -> Tensor:
        """Compute hidden states ``(B, T, C)``, see the protocol."""
        none = torch.zeros(len(embedded), 0, dtype=torch.long)
        inner = None if cache is None else cache.inner
        x, layout = self.stack.embed(none, none.bool(), causal=True, cache=inner, before=embedded)
        packed = None
        if before_layer is not None:

            def packed(number: int, x: Tensor) -> Tensor:
                return layout.pack(before_layer(number, layout.pad(x)))

        return layout.pad(self.stack.run(x, layout, inner, before_layer=packed))
