"""RoBERTa (arXiv 1907.11692), the text encoder of Florence's METER (arXiv 2111.11432, section 2.5).

The network is that of transformers, which is imported when an encoder is built.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.tokenizers.transformers_files import folder_or_name, unusable
from florence_mm.moved import moved_names
from florence_mm.ops.inference import is_recorded
from florence_mm.registry import MODELS

__getattr__ = moved_names(__name__, {'RobertaTextTokenizer': 'florence_mm.models.tokenizers'})


@MODELS.register_module()
class RobertaTextEncoder(BaseModule):
    """Text encoder of fusion models: a feature per token, by transformers' ``RobertaModel`` without its pooler.

    Args:
        pretrained: a folder saved by transformers, or a model name on the Hugging Face hub (``'roberta-base'``).
        config: arguments of transformers' ``RobertaConfig`` for random weights; with ``pretrained`` they override the
            saved ones, for example dropout.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.
        init_cfg: see mmengine; ``florence_mm.Pretrained`` loads RoBERTa's state dicts with ``prefix='text_encoder.'``.

    Attributes:
        embed_dims (int): C.
        context_length (int): longest text in tokens.
        vocab_size (int): number of ids.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: neither ``pretrained`` nor ``config`` is given, ``config`` has an unknown key, or ``pretrained``
            cannot be loaded.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pretrained is None and config is None:
            raise ValueError(
                'RobertaTextEncoder got neither pretrained nor config; give a folder or a name on the hub, or '
                'config=dict(...) for random weights (an empty one is RoBERTa-base)'
            )
        from transformers import RobertaConfig, RobertaModel

        config = dict(config or {})
        # values of RoBERTa's releases that differ from RobertaConfig's defaults
        released = {'max_position_embeddings': 514, 'type_vocab_size': 1, 'layer_norm_eps': 1e-5}
        known = RobertaConfig().to_dict()
        for key in config:
            if key not in known:
                raise ValueError(f'config of RobertaTextEncoder has {key!r}, which is no argument of RobertaConfig')
        if pretrained is None:
            self.model = RobertaModel(RobertaConfig(**released | config), add_pooling_layer=False)
        else:
            source = folder_or_name('text encoder', pretrained)
            try:
                self.model, found = RobertaModel.from_pretrained(
                    **source, **config, add_pooling_layer=False, output_loading_info=True
                )
            except (OSError, ValueError) as error:
                raise unusable('RoBERTa', pretrained, error) from None
            if missing := sorted(found['missing_keys']):
                raise ValueError(
                    f'{pretrained!r} lacks {len(missing)} of the weights of RoBERTa, among them {missing[0]}; give the '
                    'folder of a RoBERTa'
                )
            self.model.float()  # a folder of half-precision weights would not fit the other parts
        self.with_cp = with_cp
        if with_cp:
            self._checkpoint_layers()
        config = self.model.config
        self.embed_dims = config.hidden_size
        self.vocab_size = config.vocab_size
        self.pad_token_id = config.pad_token_id
        # RoBERTa's positions start after the id of the padding token
        self.context_length = config.max_position_embeddings - config.pad_token_id - 1

    def forward(self, input_ids: Tensor, mask: Tensor, causal: bool = False, cache: CacheStack | None = None) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64.
            mask: ``(B, T)`` bool, True where a token is real; padding is at the end.
            causal: each token sees only itself and those before it.
            cache: keys and values of earlier tokens of the texts; those of these tokens, without padding, are appended.
                Only with ``causal``.

        Returns:
            ``(B, T, C)``; values at padding are meaningless.

        Raises:
            ValueError: there are no texts, or more tokens than the model has positions.
        """
        if not input_ids.shape[0]:  # len() would fix the number in an export
            raise ValueError('RoBERTa got no texts; give at least one')
        held = 0 if cache is None else cache.length
        if (length := held + input_ids.shape[1]) > self.context_length:
            raise ValueError(
                f'texts have {length} tokens and RoBERTa takes {self.context_length}; lower max_text_len of the model'
            )
        device = self.model.embeddings.word_embeddings.weight.device
        # RoBERTa counts positions only over ids other than the padding's
        input_ids = input_ids.masked_fill(~mask, self.pad_token_id).to(device, non_blocking=True)
        if causal:
            # padding is at the end, so the causal mask hides it too, and all texts share one mask
            dtype = self.model.dtype
            allowed = torch.ones(input_ids.shape[1], length, dtype=torch.bool, device=device).tril(held)
            attention_mask = torch.zeros(1, 1, *allowed.shape, dtype=dtype, device=device)
            attention_mask = attention_mask.masked_fill(~allowed, torch.finfo(dtype).min)
        else:
            whole = not is_recorded() and bool(mask.all())
            attention_mask = None if whole else mask.to(device, non_blocking=True)
        if cache is None:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        # positions continue after the cached tokens, as none of the new ones is padding
        past = _TransformersCache(cache)
        with self._without_checkpointing():
            out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past)
        return out.last_hidden_state

    @contextmanager
    def _without_checkpointing(self) -> Iterator[None]:
        """Layers that recompute would leave the cache out in training mode."""
        if not self.with_cp:
            yield
            return
        self.model.gradient_checkpointing_disable()
        try:
            yield
        finally:
            self._checkpoint_layers()

    def _checkpoint_layers(self) -> None:
        self.model.gradient_checkpointing_enable({'use_reentrant': False})


class _TransformersCache:
    """Adapter of our cache to transformers' RoBERTa, which calls these two methods."""

    def __init__(self, cache: CacheStack) -> None:
        self._cache = cache

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._cache.layer(layer_idx).length

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        return self._cache.layer(layer_idx).append(torch.stack([key, value]))
