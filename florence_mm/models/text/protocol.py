"""Protocols of the language models that models over images write with.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``S`` embeddings before a text, ``E`` channels of word
embeddings and outputs, ``C`` channels of the layers (E in most), ``V`` words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from florence_mm.models.generation.cache import CacheBehind

#: Gets the number of a layer and what enters it, ``(B, T, C)``; returns what shall enter it.
BeforeLayer = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class ReadBefore:
    """What a language model has read before the texts that it writes.

    Attributes:
        tokens: ``(B, S, E)``: embeddings, or the states of an encoder.
        mask: ``(B, S)`` bool, True where one is real; None: all are.
    """

    tokens: Tensor
    mask: Tensor | None = None

    @property
    def length(self) -> int:
        """S."""
        return self.tokens.shape[1]

    def precede(self, embedded: Tensor, cache: CacheBehind | None = None) -> Tensor:
        """Put the embeddings before embedded texts ``(B, T, E)``, unless the cache holds their keys: ``(B, S + T, E)``.

        Args:
            embedded: the next tokens.
            cache: keys and values of what the language model got so far; None: it got nothing.
        """
        return embedded if cache is not None and cache.inner.length else torch.cat([self.tokens, embedded], 1)


@runtime_checkable
class LanguageModel(Protocol):
    """A language model that goes on from embeddings.

    Attributes:
        embed_dims (int): E.
        vocab_size (int): rows of the word embeddings.
        context_length (int | None): most embeddings and tokens together; None: any number.
        encodes (bool): an encoder reads what is before a text; otherwise it stands in a row with the text.
        word_embeddings (nn.Embedding): word embeddings.
    """

    embed_dims: int
    vocab_size: int
    context_length: int | None
    encodes: bool
    word_embeddings: nn.Embedding

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, E)``."""

    def read(self, tokens: Tensor, mask: Tensor | None = None) -> ReadBefore:
        """Read embeddings before texts: by the encoder, if there is one, else they are kept as they are.

        Args:
            tokens: ``(B, S, E)``.
            mask: ``(B, S)`` bool, True where one is real; None: all are. Only with an encoder.
        """

    def cache(self, before: ReadBefore | None = None) -> CacheBehind:
        """Make a cache for texts behind what was read; None: behind nothing."""

    def next_logits(
        self, input_ids: Tensor, before: ReadBefore | None = None, cache: CacheBehind | None = None
    ) -> Tensor:
        """Compute the logits ``(B, T, V)`` of what follows each token of ids ``(B, T)``.

        Args:
            input_ids: with cache those that it lacks, without padding; otherwise whole texts, padded at the end, where
                no token sees it.
            before: what stands before the texts; None: nothing, which a model with an encoder does not take.
            cache: cache from :meth:`cache`, to which the ids are added.
        """


@runtime_checkable
class LayeredLanguageModel(LanguageModel, Protocol):
    """A causal language model that also calls a function before each of its layers.

    It is a :class:`LanguageModel` whose layers and output layer are there apart, too: ``logits(run(embed(ids)))``
    equals ``next_logits(ids)``.

    Attributes:
        layer_dims (int): C.
        num_layers (int): number of layers.
    """

    layer_dims: int
    num_layers: int

    def outputs(self) -> Tensor:
        """Weights ``(V, E)`` by which hidden states give logits of words; if tied, those of ``word_embeddings``."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits of words ``(..., V)`` from hidden states ``(..., E)``, by the output layer."""

    def run(self, embedded: Tensor, cache: Any = None, before_layer: BeforeLayer | None = None) -> Tensor:
        """Compute hidden states ``(B, T, E)`` behind all layers.

        Padding is at the end, where no token sees it, and what is computed for it has no meaning.

        Args:
            embedded: ``(B, T, E)`` word embeddings.
            cache: cache from ``cache()``, to which the keys and values of these tokens, without padding, are appended.
            before_layer: called before each layer.
        """


def check_language_model(
    model: nn.Module, protocol: type, owner: str, wanted: str = 'one such as TransformersLanguageModel'
) -> None:
    """Check that a part is a language model of a kind.

    Args:
        model: the part.
        protocol: :class:`LanguageModel` or :class:`LayeredLanguageModel`.
        owner: class name of the model that needs it, for the message.
        wanted: what to give instead, for the message.

    Raises:
        ValueError: it lacks something of the protocol.
    """
    if not isinstance(model, protocol):
        lacks = next(name for name in sorted(_members(protocol)) if not hasattr(model, name))
        raise ValueError(
            f'{owner} needs a {protocol.__name__}, and {type(model).__name__} has no {lacks}; give {wanted}'
        )


@torch.no_grad()
def check_apart(model: LayeredLanguageModel, owner: str) -> None:
    """Check that layers and output layer are together the whole model: some scale logits, or hold them in a range.

    Without values (on the meta device, or of a program that is traced) nothing is checked.

    Args:
        model: the language model.
        owner: class name of the model that needs it, for the message.

    Raises:
        ValueError: they are not.
    """
    weight = model.word_embeddings.weight
    if weight.is_meta or not isinstance(weight, nn.Parameter) or type(weight.data) is not Tensor:
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    ids = torch.arange(2, device=weight.device)[None] % model.vocab_size
    apart, whole = model.logits(model.run(model.embed(ids))).float(), model.next_logits(ids).float()
    for module, mode in modes.items():
        module.training = mode
    if getattr(model, 'caps_logits', False) or not torch.allclose(
        apart, whole, rtol=1e-2, atol=1e-2 * float(whole.abs().max())
    ):
        name = type(getattr(model, 'model', model)).__name__
        raise ValueError(
            f'{owner} adds words to the output layer of a language model, and {name} changes the logits behind it; '
            'give one that does not, such as OPT or LLaMA'
        )


def _members(protocol: type) -> set[str]:
    own = (cls for cls in protocol.__mro__ if getattr(cls, '_is_protocol', False) and cls is not Protocol)
    return {name for cls in own for name in (*cls.__annotations__, *vars(cls)) if not name.startswith('_')}
