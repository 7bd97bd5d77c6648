"""METER, the vision-language model that Florence adapts to (arXiv 2111.11432, section 2.5; arXiv 2111.02387).

An image encoder and a text encoder, two stacks of co-attention layers over their tokens, and heads. Pretrained with
image-text matching and masked language modelling, fine-tuned on questions, captions or retrieval: what is trained is
which heads the config names.

Shape legend: ``B`` samples, ``T`` text tokens, ``N`` image tokens, ``C`` hidden size of the fusion, ``K`` answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import find_equal, rows_of, uniform_groups
from .co_attention import CoAttentionFusion
from .protocol import Fused, TextAttention


@MODELS.register_module()
class METER(VisionLanguageModel):
    """METER fuses image and text by co-attention: a reader, a fuser and a writer.

    Args:
        image_encoder: backbone (or its config) that returns a tuple of maps, of which the last, ``(B, C_v, H, W)``, is
            the image's tokens; ``num_features`` is C_v. Inputs of any size that the backbone takes.
        text_encoder: encoder (or its config) from ids and padding mask ``(B, T)`` to ``(B, T, C_t)``:
            ``RobertaTextEncoder`` or ``CLIPTokenEncoder``; ``embed_dims`` is C_t.
        tokenizer: the text encoder's tokenizer (or its config), a
            :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer`.
        fusion: arguments of :class:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks`: ``hidden_size``
            (768), ``num_layers`` (6), ``num_heads`` (12), ``mlp_ratio``, ``drop_rate``, ``attn_drop_rate``,
            ``layer_norm_eps``, ``with_cp``; and ``init_std`` (0.02) of
            :class:`~florence_mm.models.multimodal.co_attention.CoAttentionFusion`.
        heads: heads by name (or their configs): ``dict(itm=dict(type='FusionITMHead'), ...)``. A head has
            ``loss(batch)`` and ``predict(batch)``, the batch a
            :class:`~florence_mm.models.multimodal.batch.FusionBatch`.
        max_text_len: longest text in tokens, start and end included; 50 in METER.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: parts that do not fit each other.
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
        # not under `cross_modal`, whose learning rate METER raises
        self.token_type_embeddings = nn.Embedding(2, self.hidden_size)
        nn.init.normal_(self.token_type_embeddings.weight, std=0.02)
        self.cross_modal = CoAttentionFusion(self.text_encoder.embed_dims, self.image_encoder.num_features, **fusion)
        self.add_heads(heads, fusion.get('init_std', 0.02))

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)``, preprocessed, to tokens ``(B, N, C)``, transformed and with their type added."""
        x = self._image_map(inputs)  # (B, C_v, H, W)
        x = self.cross_modal.image_transform(x.flatten(2).transpose(1, 2))  # (B, C_v, H, W) -> (B, N, C_v) -> (B, N, C)
        return x + self.token_type_embeddings.weight[1]

    def _image_map(self, inputs: Tensor) -> Tensor:
        maps = self.image_encoder(inputs)
        return maps[-1] if isinstance(maps, tuple | list) else maps

    def encode_tokens(self, tokens: TokenBatch, causal: bool = False) -> Tensor:
        """Ids ``(B, T)`` to tokens ``(B, T, C)``, transformed and with their type added.

        Equal texts, such as one question about several images, are encoded once, unless dropout makes them differ.

        Args:
            tokens: of :meth:`tokenize`.
            causal: each token sees itself and those before it, for captions.
        """
        input_ids, mask, which = tokens.input_ids, tokens.mask, None
        if not self._drops_in_text():
            first, which = find_equal(torch.cat([input_ids, mask], 1))
            input_ids, mask = input_ids[first], mask[first]
        x = self._transform_text(self.text_encoder(input_ids, mask, causal))  # (U, T, C), of U different texts
        if which is None or len(x) == len(which):
            return x
        return x.index_select(0, torch.tensor(which, device=x.device))  # (B, T, C)

    def _transform_text(self, x: Tensor) -> Tensor:
        return self.cross_modal.text_transform(x) + self.token_type_embeddings.weight[0]  # (B, T, C_t) -> (B, T, C)

    def _drops_in_text(self) -> bool:
        modules = self.text_encoder.modules()
        return any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in modules)

    # --- fusing -------------------------------------------------------------------------------------------------------

    def fuse(
        self,
        text_tokens: Tensor,
        text_mask: Tensor | None,
        image_tokens: Tensor,
        attention_layers: Sequence[int] = (),
    ) -> Fused:
        """Run the co-attention layers.

        Args:
            text_tokens: ``(B, T, C)`` of :meth:`encode_tokens`.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None where all are.
            image_tokens: ``(B, N, C)`` of :meth:`encode_image`.
            attention_layers: layers whose cross-attention comes along, negative ones counted from the last.
        """
        return self.cross_modal(text_tokens, text_mask, image_tokens, attention_layers)

    @torch.no_grad()
    def attend(self, inputs: Tensor, text: str, layers: Sequence[int] | None = None) -> TextAttention:
        """Cross-attention from each token of a text to an image.

        Args:
            inputs: ``(1, 3, H, W)``, preprocessed.
            text: the model reads it with the image.
            layers: numbers of co-attention layers, negative ones counted from the last; None: all.

        Raises:
            ValueError: there is no such layer.
        """
        layers = range(len(self.cross_modal.layers.text_layers)) if layers is None else layers
        grid = self._image_map(inputs).shape[-2:]
        tokens, text_tokens = self.encode_text([text])
        fused = self.fuse(text_tokens, tokens.mask, self.encode_image(inputs), list(layers))
        weights = torch.stack([fused.attention[layer].text_to_image[0] for layer in layers])  # (layers, heads, T, N)
        return TextAttention(tokens.input_ids[0], weights.unflatten(3, tuple(grid)))

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Where B texts stand before their first word; a prompt is the beginning of its text.

        Image tokens never read text, since a word would otherwise reach earlier ones through them
        (:meth:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks.image_contexts`): what images give is
        the same at every step.

        Args:
            image_tokens: ``(U, N, C)`` of :meth:`encode_image`.
            image_of: for each of the B texts which of the U images it is about.
            prompts: B texts of equal length, which the texts begin with; None: none.
            cached: keep keys and values of the tokens that :meth:`write_on` gets.
        """
        contexts = self.cross_modal.layers.image_contexts(image_tokens)
        if not uniform_groups(image_of, len(image_tokens)):
            contexts = [(rows_of(keys, image_of), rows_of(values, image_of)) for keys, values in contexts]
        # of the text encoder, and of the text stack
        caches = (CacheStack(), CacheStack()) if cached else ()
        return WriterState(list(image_of), self.first_ids(len(image_of), prompts), contexts, caches)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Hidden states ``(B, n, C)`` of the next n tokens of each text.

        Args:
            tokens: without a cache all tokens of the texts, padded behind; with one those after the tokens that it
                holds, none of them padding.
            state: of :meth:`start_writing`.
        """
        layers = self.cross_modal.layers
        if not state.caches:
            return layers.decode(self.encode_tokens(tokens, causal=True), state.memory, tokens.mask)
        encoder_cache, stack_cache = state.caches
        x = self.text_encoder(tokens.input_ids, tokens.mask, causal=True, cache=encoder_cache)  # (B, n, C_t)
        return layers.decode(self._transform_text(x), state.memory, caches=stack_cache)
