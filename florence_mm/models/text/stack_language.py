"""A small causal language model of ours, for trying models around language models without files.

Shape legend: ``B`` texts, ``T`` tokens, ``C`` channels, ``V`` words.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.generation.cache import CacheStack
from florence_mm.registry import MODELS

from .layered import BeforeLayer
from .stack import TextStack


@MODELS.register_module()
class StackLanguageModel(BaseModule):
    """A :class:`~florence_mm.models.text.stack.TextStack` whose outputs are tied to its words.

    :class:`LanguageModeling` trains it, and :class:`FlorenceFlamingo` puts its blocks before its layers.

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

    def words(self) -> Tensor:
        """Word embeddings ``(V, C)``."""
        return self.word_embeddings.weight

    outputs = words

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits of words ``(..., V)`` from hidden states ``(..., C)``."""
        return F.linear(hidden, self.outputs())

    def new_cache(self) -> CacheStack:
        """An empty cache."""
        return CacheStack()

    def run(self, embedded: Tensor, cache: CacheStack | None = None, before_layer: BeforeLayer | None = None) -> Tensor:
        """Compute hidden states ``(B, T, C)``, see :class:`~florence_mm.models.text.layered.LayeredLanguageModel`."""
        none = torch.zeros(len(embedded), 0, dtype=torch.long)
        x, layout = self.stack.embed(none, none.bool(), causal=True, cache=cache, before=embedded)
        packed = None
        if before_layer is not None:

            def packed(number: int, x: Tensor) -> Tensor:
                return layout.pack(before_layer(number, layout.pad(x)))

        return layout.pad(self.stack.run(x, layout, cache, before_layer=packed))

    def next_logits(self, input_ids: Tensor, before: None = None, cache: CacheStack | None = None) -> Tensor:
        """Compute the logits ``(B, T, V)`` of what follows each token of ids ``(B, T)``.

        Args:
            input_ids: with cache those that it lacks, without padding; otherwise whole texts, padded at the end.
            before: nothing stands before a text.
            cache: cache, to which the ids are added.
        """
        ids = input_ids.to(self.words().device, non_blocking=True)
        return self.logits(self.run(F.embedding(ids, self.words()), cache))
