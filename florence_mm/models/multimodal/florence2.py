"""Florence-2, a vision-language model that solves every task by writing text with location tokens (arXiv 2311.06242).

An image encoder makes a map, an encoder reads its positions with the sentence that says the task, and a decoder writes
the answer, with boxes and polygons as tokens of a vocabulary. The image encoder is DaViT in the paper; any backbone of
ours takes its place. Encoder and decoder are BART's (arXiv 1910.13461).

Shape legend: ``U`` images, ``B`` texts, ``S`` image tokens, ``P`` tokens of the longest prompt, ``T`` tokens of the
longest text, ``C`` hidden size, ``C_v`` channels of the image encoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.initialisation import init_bert_weights, init_smooth_rows
from florence_mm.models.layers.joined_maps import joined_channels, joined_maps
from florence_mm.models.text.stack import StackMemory, TextStack
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import as_tokens, different_pairs, last_output, memory_of_rows

#: BART's embeddings and layers, in the size of the base model.
_STACK = {
    'num_layers': 6,
    'hidden_size': 768,
    'max_positions': 1024,
    'position_offset': 2,
    'num_types': 0,
    'layer_norm_eps': 1e-5,
}

#: Root mean square of embeddings of rows and columns that start smooth.
_PLACES_STD = 0.2


class ImageProjector(nn.Module):
    """Projector: a map of image features to tokens that the encoder reads beside words.

    Each place of the map gets a learned embedding of its column and row, and the first of the cosine embeddings of
    time, which pictures share. The mean over the map is put before them.

    Args:
        in_channels: C_v.
        hidden_size: C.
        max_map_size: most rows and columns of a map.

    Raises:
        ValueError: ``max_map_size`` is below 1, or there are fewer than two channels.
    """

    def __init__(self, in_channels: int, hidden_size: int, max_map_size: int = 50) -> None:
        super().__init__()
        if max_map_size < 1 or in_channels < 2:
            raise ValueError(
                f'max_map_size is {max_map_size} and the map has {in_channels} channels; give at least 1 row, and 2 '
                'channels, one for rows and one for columns'
            )
        self.rows = nn.Embedding(max_map_size, in_channels // 2)
        self.columns = nn.Embedding(max_map_size, in_channels - in_channels // 2)
        self.dense = nn.Linear(in_channels, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)
        # sine and cosine of 0 in turns
        self.register_buffer('time', torch.arange(in_channels).remainder(2).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project maps ``(U, C_v, H, W)`` to tokens ``(U, 1 + H * W, C)``.

        Raises:
            ValueError: the map has more rows or columns than ``max_map_size``.
        """
        height, width = x.shape[2:]
        if max(height, width) > (most := self.rows.num_embeddings):
            raise ValueError(
                f'the image encoder returned a map of {height} x {width} and max_map_size is {most}; make images '
                'smaller or raise max_map_size of the model'
            )
        columns = self.columns.weight[:width].expand(height, -1, -1)
        rows = self.rows.weight[:height, None].expand(-1, width, -1)
        places = torch.cat([columns, rows], 2).flatten(0, 1) + self.time  # (H W, C_v)
        x = as_tokens(x) + places.to(x.dtype)  # (U, H W, C_v)
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        return self.norm(self.dense(x))


@MODELS.register_module()
class Florence2(VisionLanguageModel):
    """Florence-2, an encoder-decoder that reads an image with a prompt; it is a reader and a writer.

    Prompts are sentences that say the task, texts its answers, see :mod:`florence_mm.language.tasks`. The decoder
    starts with the end token, behind which the start token is written, as BART's does.

    Args:
        image_encoder: the backbone (or its config), which returns a map ``(U, C_v, H, W)``, or a tuple of which the
            last is used: DaViT, or any of ours. Its ``num_features`` is C_v.
        join_maps: use all maps of the tuple: coarser ones are enlarged to the size of the first, and channels are put
            behind each other, so that small objects have places of their own. C_v is the sum of the channels in
            ``feature_info`` of the stages in ``out_indices`` of the backbone.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config), usually a
            ``LocationTokenizer``.
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack` for encoder and decoder, which share word
            embeddings; by default those of the base model, 6 layers of width 768 and 1,024 positions.
        decoder_layers: layers of the decoder; None: as many as the encoder has.
        max_map_size: most rows and columns of the map of image tokens; each has a learned embedding.
        smooth_places: words of neighbouring locations, and embeddings of neighbouring rows and columns of the map,
            start alike (:func:`~florence_mm.models.layers.initialisation.init_smooth_rows`), by which places are
            learned in fewer updates. By default each is drawn by itself.
        heads: heads (or their configs) by name, such as ``dict(tasks=dict(type='TaskHead'))``.
        max_text_len: longest text in tokens, start and end included; at most the positions of the decoder.
        max_prompt_len: longest prompt in tokens, start and end included; longer ones are cut.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together.
    """

    prompts_apart = True

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        text: Mapping[str, Any] | None = None,
        decoder_layers: int | None = None,
        max_map_size: int = 50,
        join_maps: bool = False,
        smooth_places: bool = False,
        heads: Mapping[str, dict | nn.Module] | None = None,
        max_text_len: int = 1024,
        max_prompt_len: int = 256,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {**_STACK, **(text or {})}
        super().__init__(tokenizer, text['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        check_width(self.image_encoder, 'num_features', 'Florence2')
        text = {'vocab_size': self.tokenizer.vocab_size, **text}
        self.encoder = TextStack(**text)
        check_text_sizes(self.encoder, self.tokenizer.vocab_size, max_text_len, 'max_text_len')
        if max_prompt_len < 3:
            raise ValueError(f'max_prompt_len is {max_prompt_len}; give at least 3 tokens (start, one token, end)')
        check_text_sizes(self.encoder, None, max_prompt_len, 'max_prompt_len')
        layers = text['num_layers'] if decoder_layers is None else decoder_layers
        in_decoder = {**text, 'num_layers': layers, 'cross_attention': True, 'words': self.word_embeddings}
        self.decoder = TextStack(**in_decoder)
        self.join_maps = join_maps
        channels = joined_channels(self.image_encoder) if join_maps else self.image_encoder.num_features
        self.image_projector = ImageProjector(channels, self.hidden_size, max_map_size)
        self.max_prompt_len = max_prompt_len
        std = text.get('init_std', 0.02)
        init_bert_weights(self.image_projector, std)
        if smooth_places:
            self._start_smooth(std)
        self.add_heads(heads, std)

    def _start_smooth(self, std: float) -> None:
        if (locations := getattr(self.tokenizer, 'location_ids', None)) is None:
            raise ValueError(
                f'smooth_places is set, and {type(self.tokenizer).__name__} has no locations; give a '
                'LocationTokenizer, or leave it out'
            )
        init_smooth_rows(self.word_embeddings.weight, locations, std)
        # they are added to features of a backbone, whose channels have about unit variance
        for places in (self.image_projector.rows, self.image_projector.columns):
            init_smooth_rows(places.weight, range(places.num_embeddings), _PLACES_STD)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings of encoder and decoder, to which heads may be tied."""
        return self.encoder.embeddings.word_embeddings

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C)``, which the encoder reads with a prompt.

        Raises:
            ValueError: the map of the image encoder has more rows or columns than ``max_map_size``.
        """
        maps = self.image_encoder(inputs)
        return self.image_projector(joined_maps(maps) if self.join_maps else last_output(maps))

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` of texts without an image to ``(B, T, C)``; all tokens see each other."""
        return self.encoder(tokens.input_ids, tokens.mask)

    def tokenize_prompts(self, prompts: Sequence[str]) -> TokenBatch:
        """Convert prompts to ids, cut to ``max_prompt_len``."""
        return self.tokenizer(prompts, self.max_prompt_len)

    def _read(self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None) -> StackMemory:
        """Encode images with prompts to what the decoder sees; equal pairs are encoded once."""
        if prompts is None:  # nothing is asked
            ends = self.tokenizer.start_token_id, self.tokenizer.end_token_id
            ids = torch.tensor([ends] * len(image_of))
            prompts = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
        first, which = different_pairs(self, image_of, prompts)
        images = torch.tensor([image_of[row] for row in first]).to(image_tokens.device, non_blocking=True)
        ids, real = prompts.input_ids[first], prompts.mask[first]
        x, layout = self.encoder.embed(ids, real, before=image_tokens.index_select(0, images))
        x = layout.pad(self.encoder.run(x, layout))  # (B, S + P, C)
        memory = self.decoder.contexts(x, torch.cat([real.new_ones(len(ids), image_tokens.shape[1]), real], 1))
        return memory_of_rows(memory, which, len(first))

    # --- writing ------------------------------------------------------------------------------------------------------

    def first_ids(self, rows: int, prompts: TokenBatch | None) -> Tensor:
        """Return the ids given at the start, ``(rows, 2)``: the end token and the start token, whatever is asked."""
        return torch.tensor([[self.tokenizer.end_token_id, self.tokenizer.start_token_id]] * rows)

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts; prompts are read by the encoder, with the images.

        Args:
            image_tokens: ``(U, S, C)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B prompts, of any lengths; None: an empty prompt.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        memory = self._read(image_tokens, image_of, prompts)
        return WriterState.start(image_of, self.first_ids(len(image_of), prompts), memory, cached)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        return self.decoder(tokens.input_ids, tokens.mask, causal=True, cache=state.cache, memory=state.memory)

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T - 1, C)`` that predict whole texts, see the protocol's ``Writer.teach``."""
        return self.teach_from_end(image_tokens, image_of, prompts, texts)[:, 1:]

    def teach_from_end(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T, C)`` that predict all tokens of texts, the start token included."""
        ids, mask = texts.input_ids, texts.mask  # (B, T)
        # the end token stands before the text, whose last token has no successor
        before = TokenBatch(torch.cat([ids.new_full((len(ids), 1), self.tokenizer.end_token_id), ids[:, :-1]], 1), mask)
        return self.write_on(before, self.start_writing(image_tokens, image_of, prompts))
