"""Causal language models between whose layers others can read: a stack of ours, or any of transformers.

Flamingo's blocks stand before some of the layers. A language model is not changed for that, and no code of it is
copied: :meth:`run` calls what it is given before each layer.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels of the layers, ``E`` channels of word
embeddings and outputs (C in most), ``V`` words.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.base import build_part
from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.tokenizers.transformers_files import folder_or_name, unusable
from florence_mm.registry import MODELS

#: Gets the number of a layer and what enters it, ``(B, T, C)``; returns what shall enter it.
BeforeLayer = Callable[[int, Tensor], Tensor]


class TokenCache(Protocol):
    """Keys and values of earlier tokens of texts."""

    @property
    def length(self) -> int:
        """Number of tokens."""

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``."""


class LanguageModel(BaseModule):
    """Base class of causal language models for models over images and texts.

    Attributes:
        layer_dims (int): C.
        hidden_size (int): E.
        num_layers (int): number of layers.
        vocab_size (int): V, rows of the word embeddings.
        context_length (int | None): longest text in tokens; None: any.
        tied (bool): words are predicted by their own embeddings.
    """

    layer_dims: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    context_length: int | None
    tied: bool

    def words(self) -> Tensor:
        """Word embeddings ``(V, E)``."""
        raise NotImplementedError(f'{type(self).__name__} must implement `words`')

    def outputs(self) -> Tensor:
        """Weights ``(V, E)`` by which hidden states give logits of words."""
        raise NotImplementedError(f'{type(self).__name__} must implement `outputs`')

    def output_bias(self) -> Tensor | None:
        """Bias ``(V,)`` of the logits, if there is one."""
        return None

    def new_cache(self) -> TokenCache:
        """An empty cache for :meth:`run`."""
        raise NotImplementedError(f'{type(self).__name__} must implement `new_cache`')

    def run(
        self,
        embedded: Tensor,
        mask: Tensor,
        cache: TokenCache | None = None,
        before_layer: BeforeLayer | None = None,
    ) -> Tensor:
        """Compute hidden states ``(B, T, E)``, from which :meth:`outputs` gives logits of the next words.

        Args:
            embedded: ``(B, T, E)`` word embeddings.
            mask: ``(B, T)`` bool, True where a token is real, best on the CPU; padding is at the end, and what is
                computed for it has no meaning.
            cache: keys and values of earlier tokens, to which those of these tokens, without padding, are appended.
            before_layer: called before each layer.
        """
        raise NotImplementedError(f'{type(self).__name__} must implement `run`')


@MODELS.register_module()
class StackLanguageModel(LanguageModel):
    """A small causal language model: a :class:`~florence_mm.models.text.stack.TextStack` with tied outputs.

    Args:
        stack: arguments of the stack.
        init_cfg: see mmengine.
    """

    tied = True

    def __init__(self, stack: Mapping[str, Any], init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.stack = build_part({'type': 'TextStack', 'num_types': 0, **stack}, MODELS)
        self.layer_dims = self.hidden_size = self.stack.embed_dims
        self.num_layers, self.vocab_size = len(self.stack.layers), self.stack.vocab_size
        self.context_length = self.stack.context_length

    def words(self) -> Tensor:
        """Word embeddings ``(V, C)``."""
        return self.stack.embeddings.word_embeddings.weight

    outputs = words

    def new_cache(self) -> CacheStack:
        """An empty cache."""
        return CacheStack()

    def run(
        self,
        embedded: Tensor,
        mask: Tensor,
        cache: CacheStack | None = None,
        before_layer: BeforeLayer | None = None,
    ) -> Tensor:
        """Compute hidden states, see :meth:`LanguageModel.run`."""
        none = torch.zeros(len(embedded), 0, dtype=torch.long)
        x, layout = self.stack.embed(none, none.bool(), causal=True, cache=cache, before=embedded)
        packed = None
        if before_layer is not None:

            def packed(number: int, x: Tensor) -> Tensor:
                return layout.pack(before_layer(number, layout.pad(x)))

        return layout.pad(self.stack.run(x, layout, cache, before_layer=packed))


class _TransformersCache:
    """A cache of transformers that has what ours has."""

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.inner = DynamicCache()

    @property
    def length(self) -> int:
        return self.inner.get_seq_length()

    def select(self, rows: Tensor) -> None:
        if self.length:
            self.inner.batch_select_indices(rows.to(self.inner.layers[0].keys.device))


@MODELS.register_module()
class TransformersLanguageModel(LanguageModel):
    """A causal language model of transformers, such as OPT, LLaMA, GPT-NeoX or GPT-2.

    Args:
        pretrained: a folder that transformers saved, or a name on the Hugging Face hub.
        config: with ``pretrained``, values that replace those of its config; without, ``model_type`` (such as
            ``'opt'``) and other values of a config, for a model with random weights.
        init_cfg: see mmengine.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: neither is given, ``pretrained`` has no causal language model, or its layers are not found.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.model = _load(pretrained, dict(config or {}))
        settings = self.model.config
        self._layers = (_find_layers(self.model, settings.num_hidden_layers),)  # in a tuple: they are a part already
        self.num_layers, self.layer_dims = settings.num_hidden_layers, settings.hidden_size
        self.vocab_size, self.hidden_size = self.words().shape
        self.context_length = getattr(settings, 'max_position_embeddings', None)
        self.tied = self.words() is self.outputs()

    def words(self) -> Tensor:
        """Word embeddings ``(V, E)``."""
        return self.model.get_input_embeddings().weight

    def outputs(self) -> Tensor:
        """Weights ``(V, E)`` of the output layer."""
        return self.model.get_output_embeddings().weight

    def output_bias(self) -> Tensor | None:
        """Bias ``(V,)`` of the output layer, if there is one."""
        return self.model.get_output_embeddings().bias

    def new_cache(self) -> TokenCache:
        """An empty cache."""
        return _TransformersCache()

    def run(
        self,
        embedded: Tensor,
        mask: Tensor,
        cache: TokenCache | None = None,
        before_layer: BeforeLayer | None = None,
    ) -> Tensor:
        """Compute hidden states, see :meth:`LanguageModel.run`.

        Without a mask padding at the end is hidden by causality, and positions count all tokens.
        """
        with _called_before(self._layers[0], before_layer):
            out = self.model.base_model(
                inputs_embeds=embedded,
                past_key_values=None if cache is None else cache.inner,
                use_cache=cache is not None,
            )
        return out.last_hidden_state


@contextmanager
def _called_before(layers: nn.ModuleList, before_layer: BeforeLayer | None) -> Iterator[None]:
    """Call a function before each layer, for the time of one pass."""
    if before_layer is None:
        yield
        return
    handles = [layer.register_forward_pre_hook(_Before(i, before_layer), with_kwargs=True) for i, layer in
               enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Before:
    """Replaces the hidden states that enter a layer of transformers, its first argument."""

    def __init__(self, number: int, before_layer: BeforeLayer) -> None:
        self.number, self.before_layer = number, before_layer

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if args:
            return (self.before_layer(self.number, args[0]), *args[1:]), kwargs
        return args, {**kwargs, 'hidden_states': self.before_layer(self.number, kwargs['hidden_states'])}


def _load(pretrained: str | None, config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    if pretrained is not None:
        try:
            model = AutoModelForCausalLM.from_pretrained(**folder_or_name('language model', pretrained), **config)
        except (OSError, ValueError) as error:
            raise unusable('language model', pretrained, error) from None
        return model.float()
    if 'model_type' not in config:
        raise ValueError(
            'TransformersLanguageModel got neither pretrained nor config; give a folder or a name on the hub, or '
            "config=dict(model_type='opt', ...) for random weights"
        )
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def _find_layers(model: nn.Module, number: int) -> nn.ModuleList:
    """Find the layers, of which there are as many as the config says."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return module
    raise ValueError(
        f'{type(model).__name__} has no list of {number} layers, between which nothing can be put; give another model'
    )
