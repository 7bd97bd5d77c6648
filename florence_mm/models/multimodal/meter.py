"""METER, the vision-language model into which Florence puts its encoders (arXiv 2111.11432, 2.5; arXiv 2111.02387).

An image encoder and a text encoder, two stacks of co-attention layers on their tokens, and heads. It is pretrained with
image-text matching and masked language modelling, and fine-tuned on questions, captions or retrieval; the heads in the
config determine the task.

Shape legend: ``B`` samples, ``T`` text tokens, ``N`` image tokens, ``C`` hidden size of the fusion, ``K`` answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import as_tokens, different_texts, last_output, rows_of, uniform_groups
from .co_attention import CoAttentionFusion
from .protocol import Fused, TextAttention


@MODELS.register_module()
class METER(VisionLanguageModel):
    """METER, a fusion model with co-attention: a reader, embedder, fuser, writer and attending model.

    Args:
        image_encoder: backbone (or its config) that returns a map ``(B, C_v, H, W)``, whose positions are the image
            tokens, or tokens ``(B, N, C_v)``, a class token and those of a map, as ``CLIPVisionTower(out_type='raw')``
            does; or a tuple of these of which the last is used. Its ``num_features`` is C_v.
        text_encoder: encoder (or its config) from ids and padding mask ``(B, T)`` to ``(B, T, C_t)``:
            ``RobertaTextEncoder`` or ``CLIPTokenEncoder``; its ``embed_dims`` is C_t.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` of the text encoder (or its
            config).
        fusion: arguments of :class:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks`: ``hidden_size``
            (768), ``num_layers`` (6), ``num_heads`` (12), ``mlp_ratio``, ``drop_rate``, ``attn_drop_rate``,
            ``layer_norm_eps``, ``with_cp``; and ``init_std`` (0.02) and ``image_pool`` (``'mean'``; ``'first'`` for
            CLIP's class token) of :class:`~florence_mm.models.multimodal.co_attention.CoAttentionFusion`.
        heads: heads (or their configs) by name: ``dict(itm=dict(type='FusionITMHead'), ...)``. A head has
            ``loss(batch)`` and ``predict(batch)``, which get a
            :class:`~florence_mm.models.multimodal.batch.FusionBatch`.
        max_text_len: longest text in tokens, start and end included; 50 in METER.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together.
    """

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        text_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        fusion: Mapping[str, Any] | None = None,
        heads: Mapping[str, dict | nn.Module] | None = None,
        max_text_len: int = 50,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        fusion = {'hidden_size': 768, **(fusion or {})}
        super().__init__(tokenizer, fusion['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        self.text_encoder = build_part(text_encoder)
        check_width(self.image_encoder, 'num_features', 'METER')
        check_width(self.text_encoder, 'embed_dims', 'METER')
        check_text_sizes(self.text_encoder, self.tokenizer.vocab_size, max_text_len, 'max_text_len')
        # outside `cross_modal`, which METER trains with a higher learning rate
        self.token_type_embeddings = nn.Embedding(2, self.hidden_size)
        nn.init.normal_(self.token_type_embeddings.weight, std=0.02)
        self.cross_modal = CoAttentionFusion(self.text_encoder.embed_dims, self.image_encoder.num_features, **fusion)
        self.add_heads(heads, fusion.get('init_std', 0.02))

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(B, 3, H, W)`` to transformed tokens ``(B, N, C)`` with type embedding."""
        x = as_tokens(last_output(self.image_encoder(inputs)))  # (B, N, C_v)
        x = self.cross_modal.image_transform(x)  # (B, N, C)
        return x + self.token_type_embeddings.weight[1]

    def encode_tokens(self, tokens: TokenBatch, causal: bool = False) -> Tensor:
        """Encode ids ``(B, T)`` to transformed tokens ``(B, T, C)`` with type embedding.

        Equal texts, such as one question about several images, are encoded once, except with dropout.

        Args:
            tokens: ids and mask from :meth:`tokenize`.
            causal: each token sees only itself and those before it, for captions.
        """
        tokens, which = different_texts(self.text_encoder, tokens)
        x = self._transform_text(self.text_encoder(tokens.input_ids, tokens.mask, causal))
        return rows_of(x, which)  # (B, T, C)

    def _transform_text(self, x: Tensor) -> Tensor:
        return self.cross_modal.text_transform(x) + self.token_type_embeddings.weight[0]  # (B, T, C_t) -> (B, T, C)

    def pool_image(self, image_tokens: Tensor) -> Tensor:
        """Reduce image tokens ``(U, N, C)`` to the vector ``(U, C)`` that is pooled of an image."""
        return image_tokens[:, 0] if self.cross_modal.image_pool == 'first' else image_tokens.mean(1)

    def pool_text(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` to the vector ``(B, C)`` of the start token."""
        return self.encode_tokens(tokens)[:, 0]

    # --- fusing -------------------------------------------------------------------------------------------------------

    def fuse(
        self,
        text_tokens: Tensor,
        text_mask: Tensor | None,
        image_tokens: Tensor,
        attention_layers: Sequence[int] = (),
    ) -> Fused:
        """Fuse text and image tokens by the co-attention layers.

        Args:
            text_tokens: ``(B, T, C)`` from :meth:`encode_tokens`.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None: all are.
            image_tokens: ``(B, N, C)`` from :meth:`encode_image`.
            attention_layers: indices of layers whose cross-attention weights are returned; negative ones count from the
                last.
        """
        return self.cross_modal(text_tokens, text_mask, image_tokens, attention_layers)

    @torch.no_grad()
    def attend(self, inputs: Tensor, text: str, layers: Sequence[int] | None = None) -> TextAttention:
        """Return the cross-attention weights from each token of a text to an image.

        Args:
            inputs: ``(1, 3, H, W)``, preprocessed.
            text: the text.
            layers: indices of co-attention layers; negative ones count from the last; None: all.

        Raises:
            ValueError: a layer does not exist, or none is asked for.
        """
        if layers is not None and not len(layers):
            raise ValueError('layers is empty; name at least one co-attention layer, or None for all')
        layers = range(len(self.cross_modal.layers.text_layers)) if layers is None else layers
        output = last_output(self.image_encoder(inputs))
        tokens, text_tokens = self.encode_text([text])
        fused = self.fuse(text_tokens, tokens.mask, self.encode_image(inputs), list(layers))
        weights = torch.stack([fused.attention[layer].text_to_image[0] for layer in layers])  # (layers, heads, T, N)
        if output.ndim == 4:
            grid = tuple(output.shape[-2:])
        else:  # without the class token, which has no place in the image
            grid, weights = self.image_encoder.map_size(inputs), weights[..., 1:]
            weights = weights / weights.sum(3, keepdim=True)
        return TextAttention(tokens.input_ids[0], weights.unflatten(3, grid))

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts; a prompt is the beginning of its text.

        The image stack skips its cross-attention to the text, through which tokens would otherwise see later ones, so
        that the keys and values of images are the same at every step
        (:meth:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks.image_contexts`).

        Args:
            image_tokens: ``(U, N, C)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B prompts of equal length; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        contexts = self.cross_modal.layers.image_contexts(image_tokens)
        if not uniform_groups(image_of, len(image_tokens)):
            contexts = [(rows_of(keys, image_of), rows_of(values, image_of)) for keys, values in contexts]
        # the text encoder and the text stack have a cache each
        return WriterState.start(image_of, self.first_ids(len(image_of), prompts), contexts, cached, stacks=2)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        layers = self.cross_modal.layers
        if not state.caches:
            return layers.decode(self.encode_tokens(tokens, causal=True), state.memory, tokens.mask)
        encoder_cache, stack_cache = state.caches
        x = self.text_encoder(tokens.input_ids, tokens.mask, causal=True, cache=encoder_cache)  # (B, n, C_t)
        return layers.decode(self._transform_text(x), state.memory, caches=stack_cache)
