"""Protocol of causal language models between whose layers others can read, and calls before layers of transformers.

Flamingo's blocks stand before some of the layers. A language model is not changed for that, and no code of it is
copied: its ``run`` calls what it is given before each layer.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels of the layers, ``E`` channels of word
embeddings and outputs (C in most), ``V`` words.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

#: Gets the number of a layer and what enters it, ``(B, T, C)``; returns what shall enter it.
BeforeLayer = Callable[[int, Tensor], Tensor]


class TokenCache(Protocol):
    """Keys and values of earlier tokens of texts."""

    @property
    def length(self) -> int:
        """Number of tokens."""

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``."""


@runtime_checkable
class LayeredLanguageModel(Protocol):
    """A causal language model that calls a function before each of its layers.

    It also has ``embed_dims``, E, ``layer_dims``, C, ``num_layers``, ``vocab_size``, rows of the word embeddings, and
    ``context_length``, the longest text in tokens, or None.
    """

    def words(self) -> Tensor:
        """Word embeddings ``(V, E)``."""

    def outputs(self) -> Tensor:
        """Weights ``(V, E)`` by which hidden states give logits of words; ``words()`` itself if they are tied."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits of words ``(..., V)`` from hidden states ``(..., E)``, by the output layer."""

    def new_cache(self) -> TokenCache:
        """An empty cache for :meth:`run`."""

    def run(self, embedded: Tensor, cache: TokenCache | None = None, before_layer: BeforeLayer | None = None) -> Tensor:
        """Compute hidden states ``(B, T, E)``, from which :meth:`outputs` gives logits of the next words.

        Padding is at the end, where no token sees it, and what is computed for it has no meaning.

        Args:
            embedded: ``(B, T, E)`` word embeddings.
            cache: keys and values of earlier tokens, to which those of these tokens, without padding, are appended.
            before_layer: called before each layer.
        """


@contextmanager
def called_before(layers: nn.ModuleList, before_layer: BeforeLayer | None) -> Iterator[None]:
    """Call a function before each layer, which gets hidden states first, for the time of one pass."""
    if before_layer is None:
        yield
        return
    handles = [
        layer.register_forward_pre_hook(_Before(number, before_layer), with_kwargs=True)
        for number, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Before:
    """Replaces the hidden states that enter a layer."""

    def __init__(self, number: int, before_layer: BeforeLayer) -> None:
        self.number, self.before_layer = number, before_layer

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if args:
            return (self.before_layer(self.number, args[0]), *args[1:]), kwargs
        return args, {**kwargs, 'hidden_states': self.before_layer(self.number, kwargs['hidden_states'])}


def find_layers(model: nn.Module, number: int) -> nn.ModuleList:
    """Find the layers of a model, of which there are as many as its config says.

    Raises:
        ValueError: it has no such list.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return module
    raise ValueError(
        f'{type(model).__name__} has no list of {number} layers, between which nothing can be put; give another model'
    )
