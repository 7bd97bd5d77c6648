"""SimVLM, a vision-language model trained by one loss, a prefix language model (arXiv 2108.10904).

The first stages of a convolutional network make patches of an image; an encoder reads them with the beginning of a text
in one sequence, where all tokens see each other; a decoder writes the rest. A question is such a beginning, and its
answer the rest. A text may have no image: the encoder then reads the beginning alone.

Choices of ours where the paper leaves it open: layers are BART's (post-norm); encoder and decoder share the embeddings
of words and positions; positions in the decoder count from the cut; what is written begins with the start token, and so
does the beginning that the encoder reads, which therefore is never empty. Positions of patches are learned and resized
to other maps; the paper's relative attention of patches is left out.

Shape legend: ``U`` images, ``B`` texts, ``S`` image tokens, ``P`` tokens of the longest prompt, ``T`` tokens of the
longest text, ``C`` hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text.stack import LayerStack, StackMemory, TextStack
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.attention import dropout
from florence_mm.ops.position import resize_position_embedding
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import as_tokens, different_pairs, last_output, memory_of_rows

#: BART's embeddings and layers; the paper trains without dropout.
_STACK = {
    'num_layers': 12,
    'hidden_size': 768,
    'num_types': 0,
    'layer_norm_eps': 1e-5,
    'drop_rate': 0.0,
    'attn_drop_rate': 0.0,
}
#: Arguments that the decoder, which is without embeddings of its own, does not take.
_OF_EMBEDDINGS = ('vocab_size', 'max_positions', 'position_offset', 'num_types', 'embed_norm_eps')


@MODELS.register_module()
class SimVLM(VisionLanguageModel):
    """SimVLM, an encoder-decoder trained as a prefix language model; it implements the protocols reader and writer.

    Args:
        image_encoder: the convolutions (or their config), which return a map ``(U, C_v, H, W)``, or a tuple of which
            the last is used: the first three stages of a ResNet, such as mmpretrain's with ``num_stages=3``, or any
            backbone of ours. Its ``num_features``, or ``feat_dim``, is C_v.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config).
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack` for encoder and decoder, which have equal
            sizes; by default those of the base model, 12 layers of width 768.
        decoder_layers: layers of the decoder; None: as many as the encoder has.
        map_size: (height, width) of the usual map of image tokens, each of which has a learned position; those for
            other maps are interpolated. (14, 14) for 224 pixels.
        heads: heads (or their configs) by name, such as
            ``dict(caption=dict(type='FusionCaptionHead', random_prefix=True, tied=True, transform=False))``.
        max_text_len: longest text in tokens, start and end included; 256 in the paper. Prompts have it apart.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together.
    """

    needs_pictures = False

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        text: Mapping[str, Any] | None = None,
        decoder_layers: int | None = None,
        map_size: tuple[int, int] = (14, 14),
        heads: Mapping[str, dict | nn.Module] | None = None,
        max_text_len: int = 256,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {**_STACK, 'max_positions': max_text_len, **(text or {})}
        super().__init__(tokenizer, text['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        if min(map_size) < 1:
            raise ValueError(f'map_size is {tuple(map_size)}; give height and width of the map, at least 1 each')
        self.encoder = TextStack(**{'vocab_size': self.tokenizer.vocab_size, **text})
        check_text_sizes(self.encoder, self.tokenizer.vocab_size, max_text_len, 'max_text_len')
        in_decoder = {key: value for key, value in text.items() if key not in _OF_EMBEDDINGS}
        layers = text['num_layers'] if decoder_layers is None else decoder_layers
        self.decoder = LayerStack(**{**in_decoder, 'num_layers': layers, 'cross_attention': True})
        self.image_projection = nn.Linear(_width(self.image_encoder), self.hidden_size)
        self.map_size = tuple(map_size)
        std = text.get('init_std', 0.02)
        self.patch_positions = nn.Embedding(self.map_size[0] * self.map_size[1], self.hidden_size)
        self.patch_norm = nn.LayerNorm(self.hidden_size, eps=text['layer_norm_eps'])
        for part in (self.image_projection, self.patch_positions):
            init_bert_weights(part, std)
        self.add_heads(heads, std)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings, to which heads may be tied."""
        return self.encoder.embeddings.word_embeddings

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Embed preprocessed images ``(U, 3, H, W)`` as patches ``(U, S, C)``, which the encoder reads with a text."""
        x = last_output(self.image_encoder(inputs))  # (U, C_v, h, w)
        positions = self.patch_positions.weight[None]
        positions = resize_position_embedding(positions, x.shape[2:], self.map_size)  # (1, S, C)
        x = self.image_projection(as_tokens(x)) + positions
        return dropout(self.patch_norm(x), self.encoder.embeddings.drop_rate if self.training else 0.0)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` of texts without an image to ``(B, T, C)``; all tokens see each other."""
        return self.encoder(tokens.input_ids, tokens.mask)

    def _encode(self, image_tokens: Tensor, image_of: Sequence[int | None], prompts: TokenBatch | None) -> StackMemory:
        """Encode images with the beginnings of B texts to what the decoder sees; equal pairs are encoded once."""
        ids = self.first_ids(len(image_of), None) if prompts is None else prompts.input_ids[:, :-1]  # (B, P)
        real = torch.ones_like(ids, dtype=torch.bool) if prompts is None else prompts.mask[:, 1:]  # without the end
        first, which = different_pairs(self, image_of, TokenBatch(ids, real))
        images = torch.tensor([-1 if image_of[row] is None else image_of[row] for row in first])
        ids, real = ids[first], real[first]
        x, layout = self.encoder.embed(ids, real)
        shown = images >= 0
        if bool(shown.any()):  # a text without an image has padding in its place
            rows = images.clamp(min=0).to(image_tokens.device, non_blocking=True)
            both = torch.cat([image_tokens.index_select(0, rows), layout.pad(x)], 1)
            real = torch.cat([shown[:, None].expand(-1, image_tokens.shape[1]), real], 1)
            layout = TokenLayout.of(real, device=image_tokens.device)
            x = layout.pack(both)
        else:  # for the gradients of other processes' images
            x = x + 0 * image_tokens.sum()
        memory = self.decoder.contexts(layout.pad(self.encoder.run(x, layout)), real)
        return memory_of_rows(memory, which, len(first))

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int | None],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts; prompts are read by the encoder, with the images.

        Args:
            image_tokens: ``(U, S, C)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts; None: it has no image.
            prompts: B prompts, of any lengths; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        memory = self._encode(image_tokens, image_of, prompts)
        return WriterState.start(image_of, self.first_ids(len(image_of), None), memory, cached)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        x, layout = self.encoder.embed(tokens.input_ids, tokens.mask, causal=True, cache=state.cache)
        return layout.pad(self.decoder.run(x, layout, state.cache, state.memory))

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int | None], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T - 1, C)`` that predict whole texts, see the protocol's ``Writer.teach``."""
        return self.write_on(texts.without_last(), self.start_writing(image_tokens, image_of, prompts))


def _width(image_encoder: nn.Module) -> int:
    """Channels of an image encoder's map; mmpretrain's ResNet names them ``feat_dim``."""
    if hasattr(image_encoder, 'feat_dim'):
        return image_encoder.feat_dim
    check_width(image_encoder, 'num_features', 'SimVLM')
    return image_encoder.num_features
