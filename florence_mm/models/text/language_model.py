"""Language models of transformers, with which models over images write.

Shape legend: ``B`` texts, ``T`` their tokens, ``S`` embeddings before a text, ``P`` tokens of the longest prompt, ``E``
width of the embeddings, ``V`` vocabulary.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.generation.cache import CacheBehind
from florence_mm.models.tokenizers.transformers_files import folder_or_name, unusable
from florence_mm.registry import MODELS

from .layered import called_before, find_layers
from .protocol import BeforeLayer, ReadBefore

_TYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


class TransformersCache:
    """Keys and values of a language model of transformers.

    Args:
        encodes: whether the model has an encoder, to whose states a part of the keys belongs.

    Attributes:
        held: the cache of transformers.
    """

    def __init__(self, encodes: bool) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.held = EncoderDecoderCache(DynamicCache(), DynamicCache()) if encodes else DynamicCache()

    @property
    def length(self) -> int:
        """Number of cached tokens, those of an encoder left out."""
        return int(self.held.get_seq_length())

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``, for ``(B,)`` int64."""
        if self.length:
            layers = getattr(self.held, 'self_attention_cache', self.held).layers
            self.held.reorder_cache(rows.to(layers[0].keys.device))


@MODELS.register_module()
class TransformersLanguageModel(BaseModule):
    """Causal or encoder-decoder language model of transformers, such as OPT or T5.

    It implements :class:`~florence_mm.models.text.protocol.LanguageModel`, and a causal one
    :class:`~florence_mm.models.text.protocol.LayeredLanguageModel` too.

    Args:
        pretrained: a folder saved by transformers, or a model name on the Hugging Face hub.
        config: ``model_type`` and arguments of the model's config for random weights; with ``pretrained`` they override
            the saved ones.
        dtype: type of its weights: ``'float32'``, ``'bfloat16'`` or ``'float16'``; None: ``'float32'``.
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): E.
        vocab_size (int): V.
        context_length (int | None): most embeddings and tokens together; None: any number.
        encodes (bool): it has an encoder, which reads what stands before a text.
        layer_dims (int): channels of its layers; with an encoder it has no such attribute, and none of the next.
        num_layers (int): number of its layers.
        caps_logits (bool): its logits are held in a range, as Gemma 2's.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: neither ``pretrained`` nor ``config`` is given, or one of them is of no language model, or of one
            that keeps no keys and values.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        dtype: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if dtype is not None and dtype not in _TYPES:
            raise ValueError(f'dtype of the language model is {dtype!r}; give one of {", ".join(_TYPES)}')
        if pretrained is None and not (config and 'model_type' in config):
            raise ValueError(
                'TransformersLanguageModel got neither pretrained nor a config with model_type; give a folder or a '
                "name on the hub, or config=dict(model_type='opt', ...) for random weights"
            )
        self.has_weights = pretrained is not None
        self.model = self._load(pretrained, dict(config or {})) if pretrained else self._make(dict(config))
        self.model.to(_TYPES[dtype or 'float32'])
        text = self.model.config
        if getattr(self.model, '_is_stateful', False):
            raise ValueError(
                f'{type(self.model).__name__} keeps a state and no keys and values, with which texts are written token '
                'by token here; give a transformer, such as OPT'
            )
        self.encodes = bool(text.is_encoder_decoder)
        self.embed_dims, self.vocab_size = self.model.get_input_embeddings().embedding_dim, text.vocab_size
        # T5's positions are relative
        self.context_length = getattr(text, 'max_position_embeddings', None) or getattr(text, 'n_positions', None)
        if self.encodes and getattr(text, 'relative_attention_num_buckets', None):
            self.context_length = None
        if not self.encodes:
            self.num_layers, self.layer_dims = text.num_hidden_layers, text.hidden_size
        self.caps_logits = bool(getattr(text, 'final_logit_softcapping', None))
        # some encoders multiply the embeddings of ids, and not embeddings that they get
        encoder = self.model.get_encoder() if self.encodes else None
        is_plain = type(self.word_embeddings) is nn.Embedding
        self._embed_scale = float(getattr(encoder, 'embed_scale', None) or 1.0) if is_plain else 1.0
        self._keeps_logits = 'logits_to_keep' in inspect.signature(self.model.forward).parameters

    @staticmethod
    def _make(config: dict[str, Any]) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

        kind = config.pop('model_type')
        try:
            made = AutoConfig.for_model(kind, **config)
            auto = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
            return auto.from_config(made)
        except ValueError as error:
            raise unusable('language model', f'model_type={kind}', error) from None

    @staticmethod
    def _load(pretrained: str, config: dict[str, Any]) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

        source = folder_or_name('language model', pretrained)
        kind = config.pop('model_type', None)
        try:
            saved = AutoConfig.from_pretrained(**source, **config)
            if kind not in (None, saved.model_type):
                raise ValueError(f'it is a {saved.model_type}, and model_type of the config is {kind}')
            auto = AutoModelForSeq2SeqLM if saved.is_encoder_decoder else AutoModelForCausalLM
            model, found = auto.from_pretrained(**source, config=saved, output_loading_info=True)
        except (OSError, ValueError) as error:
            raise unusable('language model', pretrained, error) from None
        if missing := sorted(found['missing_keys']):
            raise ValueError(
                f'{pretrained!r} lacks {len(missing)} of the weights of {type(model).__name__}, among them '
                f'{missing[0]}; give the folder of a whole language model'
            )
        return model

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Its word embeddings."""
        return self.model.get_input_embeddings()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, E)``."""
        words = self.word_embeddings
        x = words(input_ids.to(words.weight.device, non_blocking=True))
        return x if self._embed_scale == 1.0 else x * self._embed_scale

    def read(self, tokens: Tensor, mask: Tensor | None = None) -> ReadBefore:
        """Read embeddings before texts: by the encoder, if there is one, else they are kept as they are.

        Args:
            tokens: ``(B, S, E)``.
            mask: ``(B, S)`` bool, True where one is real; None: all are. Only with an encoder.
        """
        tokens = tokens.to(self.dtype)
        if not self.encodes:
            return ReadBefore(tokens)
        mask = None if mask is None else mask.to(tokens.device, non_blocking=True)
        encoder = self.model.get_encoder()
        return ReadBefore(encoder(inputs_embeds=tokens, attention_mask=mask).last_hidden_state, mask)

    def cache(self, before: ReadBefore | None = None) -> CacheBehind:
        """Make a cache for texts behind what was read; None: behind nothing."""
        return CacheBehind(TransformersCache(self.encodes), 0 if self.encodes or before is None else before.length)

    def next_logits(
        self, input_ids: Tensor, before: ReadBefore | None = None, cache: CacheBehind | None = None
    ) -> Tensor:
        """Compute the logits ``(B, T, V)`` of what follows each token, see the protocol.

        Padding is at the end, where no token sees it, and needs no mask.
        """
        count = input_ids.shape[1]
        if self.encodes:
            from transformers.modeling_outputs import BaseModelOutput

            read = {'encoder_outputs': BaseModelOutput(last_hidden_state=before.tokens), 'attention_mask': before.mask}
            ids = input_ids.to(before.tokens.device, non_blocking=True)
            return self.model(decoder_input_ids=ids, **read, **_held_by(cache)).logits
        x = self.embed(input_ids)
        x = x if before is None else before.precede(x, cache)  # (B, S + T, E)
        keep = {'logits_to_keep': count} if self._keeps_logits else {}
        return self.model(inputs_embeds=x, **_held_by(cache), **keep).logits[:, -count:]

    # --- between the layers of a causal one ---------------------------------------------------------------------------

    def outputs(self) -> Tensor:
        """Weights ``(V, E)`` of the output layer; if tied, those of ``word_embeddings``."""
        return self.model.get_output_embeddings().weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits of words ``(..., V)`` from hidden states ``(..., E)``, by the output layer."""
        return self.model.get_output_embeddings()(hidden)

    def run(
        self, embedded: Tensor, cache: CacheBehind | None = None, before_layer: BeforeLayer | None = None
    ) -> Tensor:
        """Compute hidden states ``(B, T, E)``, see :class:`~florence_mm.models.text.protocol.LayeredLanguageModel`."""
        with called_before(find_layers(self.model, self.num_layers), before_layer):
            return self.model.base_model(inputs_embeds=embedded, **_held_by(cache)).last_hidden_state


def _held_by(cache: CacheBehind | None) -> dict[str, Any]:
    """Arguments of transformers for a cache."""
    return {'use_cache': False} if cache is None else {'past_key_values': cache.inner.held, 'use_cache': True}
