"""Calls of a function before the layers of a language model of transformers.

Flamingo's blocks stand before some of the layers. A language model is not changed for that, and no code of it is
copied: its ``run`` calls what it is given before each layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .protocol import BeforeLayer


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
