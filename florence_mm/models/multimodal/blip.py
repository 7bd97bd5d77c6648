"""BLIP: contrast, matching and captions by one text model in three modes (arXiv 2201.12086).

The text model is BERT with cross-attention to image tokens. It encodes a text alone, for contrast; a text and an image,
for matching, behind the start token ``[ENC]``; and writes a text about an image, behind ``[DEC]``. Encoder and decoder
share all but self-attention (section 3.2), whose output layer and norm are part of it.

Shape legend: ``U`` images, ``B`` texts, ``S`` image tokens, ``T`` text tokens, ``C`` hidden size, ``C_v`` width of the
image encoder.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.token_layout import TokenLayout, layout_of
from florence_mm.models.text.stack import TextStack
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .base import VisionLanguageModel
from .batch import as_tokens, different_texts, find_equal, last_output, memory_of_rows, rows_of
from .marks import behind_mark, mark_id
from .protocol import Fused


class BLIPTowers(nn.Module):
    """The parts of BLIP that describe an image alone and a text alone.

    Args:
        image_encoder: see :class:`BLIP`.
        text_encoder: the text model.
        image_pool: see :class:`BLIP`.
    """

    def __init__(self, image_encoder: nn.Module, text_encoder: TextStack, image_pool: str) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder, self.image_pool = image_encoder, text_encoder, image_pool

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C_v)``."""
        return as_tokens(last_output(self.image_encoder(inputs)))

    def pool_image(self, image_tokens: Tensor) -> Tensor:
        """Reduce image tokens ``(U, S, C_v)`` to one vector ``(U, C_v)``: the class token, or their mean."""
        return image_tokens[:, 0] if self.image_pool == 'first' else image_tokens.mean(1)

    def pool_text(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` without an image to the vector ``(B, C)`` of the start token; equal texts once."""
        tokens, which = different_texts(self.text_encoder, tokens)
        return rows_of(self.text_encoder(tokens.input_ids, tokens.mask)[:, 0], which)


@MODELS.register_module()
class BLIP(VisionLanguageModel):
    """BLIP, a model that compares, matches and writes: a reader, embedder, fuser and writer.

    Its three objectives are heads. For pretraining::

        heads=dict(
            itc=dict(type='FusionITCHead', positives='own_text', momentum=0.995, queue_size=57600, alpha_steps=...),
            itm=dict(type='FusionITMHead', negatives='own'),
            caption=dict(type='FusionCaptionHead', tied=True, label_smoothing=0.1),
        )

    Args:
        image_encoder: backbone (or its config), as of :class:`METER`: tokens ``(U, S, C_v)`` as of a plain ViT,
            ``CLIPVisionTower(out_type='raw', pre_norm=False, patch_bias=True)``, or a map ``(U, C_v, H, W)``.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config).
        text: arguments of :class:`~florence_mm.models.text.stack.TextStack`; by default BERT-base's, without token
            types.
        decoder: arguments of a text decoder that shares nothing with the encoder, as in the public code's models for
            questions; those of ``text`` are its defaults. None: they share all but self-attention.
        heads: heads (or their configs) by name.
        image_pool: what describes an image alone: the ``'first'`` token, the class token of a ViT, or the ``'mean'``.
        enc_token_id: id that takes the place of the start token in the mode with image; None: behind the tokenizer's
            ids and ``[DEC]``, as in BLIP, unless the tokenizer has ``[ENC]``.
        dec_token_id: id that takes the place of the start token in writing; None: behind the tokenizer's ids, unless it
            has ``[DEC]``.
        max_text_len: longest text in tokens, start and end included; 30 in BLIP's pretraining, 35 in retrieval.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together, or an argument is unknown.
    """

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        text: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        heads: Mapping[str, dict | nn.Module] | None = None,
        image_pool: str = 'first',
        enc_token_id: int | None = None,
        dec_token_id: int | None = None,
        max_text_len: int = 30,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {'hidden_size': 768, 'num_types': 0, **(text or {})}
        super().__init__(tokenizer, text['hidden_size'], max_text_len, data_preprocessor, init_cfg)
        if image_pool not in ('first', 'mean'):
            raise ValueError(f"image_pool is {image_pool!r}; use 'first' for a backbone with a class token, or 'mean'")
        self.pooled_size, self.image_pool = self.hidden_size, image_pool
        self.image_encoder = build_part(image_encoder)
        check_width(self.image_encoder, 'num_features', 'BLIP')
        self.image_dims = self.image_encoder.num_features
        ids = [
            mark_id(self.tokenizer, '[DEC]', dec_token_id, 0),
            mark_id(self.tokenizer, '[ENC]', enc_token_id, 1),
        ]
        self.dec_token_id, self.enc_token_id = ids
        needed = max(*ids, self.tokenizer.vocab_size - 1) + 1
        text = {'vocab_size': needed, **text, 'cross_attention': True}
        self.text_encoder = TextStack(**{**text, 'context_dims': self.image_dims, 'causal_attention': decoder is None})
        # a decoder of its own reads questions, whose width is C
        self.text_decoder = None if decoder is None else TextStack(**{**text, **decoder})
        for stack in filter(None, (self.text_encoder, self.text_decoder)):
            check_text_sizes(stack, needed, max_text_len, 'max_text_len')
        self.add_heads(heads, text.get('init_std', 0.02))

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings of what writes, to which heads may be tied."""
        return self._writing_stack.embeddings.word_embeddings

    @property
    def _writing_stack(self) -> TextStack:
        return self.text_encoder if self.text_decoder is None else self.text_decoder

    # --- reading ------------------------------------------------------------------------------------------------------

    def towers(self) -> BLIPTowers:
        """The parts that describe an image alone and a text alone."""
        return BLIPTowers(self.image_encoder, self.text_encoder, self.image_pool)

    def copy_towers(self) -> BLIPTowers:
        """Copy :meth:`towers`, without the self-attention of causal texts."""
        copy = deepcopy(self.towers())
        for layer in copy.text_encoder.layers:
            if layer.has_causal_attention:
                del layer.causal_attention
                layer.has_causal_attention = False
        return copy

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C_v)``."""
        return self.towers().encode_image(inputs)

    def pool_image(self, image_tokens: Tensor) -> Tensor:
        """Reduce image tokens ``(U, S, C_v)`` to one vector an image, ``(U, C_v)``."""
        return self.towers().pool_image(image_tokens)

    def pool_text(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` without an image to one vector a text, ``(B, C)``."""
        return self.towers().pool_text(tokens)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Embed ids ``(B, T)``, behind ``[ENC]``, to what :meth:`fuse` takes, ``(B, T, C)``."""
        stack = self.text_encoder
        layout = TokenLayout.of(tokens.mask, device=stack.embeddings.word_embeddings.weight.device)
        ids = behind_mark(tokens.input_ids, self.enc_token_id)
        return layout.pad(stack.embeddings(ids.to(stack.embeddings.word_embeddings.weight.device), layout))

    # --- fusing -------------------------------------------------------------------------------------------------------

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> Fused:
        """Encode texts that see images by cross-attention; the pooled pair is the text's first token.

        Args:
            text_tokens: ``(B, T, C)`` from :meth:`encode_tokens`.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None: all are.
            image_tokens: ``(B, S, C_v)`` from :meth:`encode_image`.
        """
        layout = layout_of(text_tokens, text_mask)
        memory = self.text_encoder.contexts(image_tokens, queries=layout.length)
        text = layout.pad(self.text_encoder.run(layout.pack(text_tokens), layout, memory=memory))  # (B, T, C)
        return Fused(text, image_tokens, text[:, 0])

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts about images, or of B answers.

        Answers see the states of their questions, fused with the images, alone (section 4.4).

        Args:
            image_tokens: ``(U, S, C_v)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B questions, of any lengths; one that is asked several times about an image is read once. None:
                the texts are about the images.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.

        Raises:
            ValueError: the decoder cannot read questions, or images.
        """
        memory, memory_of, count = image_tokens, image_of, len(image_tokens)
        mask = None
        if prompts is not None:
            memory, mask, memory_of = self._read_questions(image_tokens, image_of, prompts)
            count = len(memory)
        self._check_width(memory.shape[2], 'images' if prompts is None else 'questions')
        memory = memory_of_rows(self._writing_stack.contexts(memory, mask), memory_of, count)
        return WriterState.start(image_of, self.first_ids(len(image_of), None), memory, cached)

    def _read_questions(
        self, image_tokens: Tensor, image_of: Sequence[int], questions: TokenBatch
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Fuse the different questions with their images; returns states, mask, and which of them each row asks."""
        images = torch.tensor(list(image_of))
        first, which = find_equal(torch.cat([questions.input_ids, questions.mask, images[:, None]], 1))
        asked = TokenBatch(questions.input_ids[first], questions.mask[first])
        about = image_tokens.index_select(0, images[first].to(image_tokens.device, non_blocking=True))
        return self.fuse(self.encode_tokens(asked), asked.mask, about).text, asked.mask, which

    def _check_width(self, width: int, what: str) -> None:
        """Check that the decoder's cross-attention takes what it is to read."""
        takes = self._writing_stack.layers[0].crossattention.key_value.in_features
        if width != takes:
            own = 'give it a decoder of its own (`decoder={}`)'
            advice = own if self.text_decoder is None else 'leave out `decoder`'
            raise ValueError(
                f'the decoder of this BLIP reads what is {takes} wide, and {what} are {width} wide; {advice} in the '
                'config of the model'
            )

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text, which stands behind ``[DEC]``.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        ids = tokens.input_ids if state.length else behind_mark(tokens.input_ids, self.dec_token_id)
        return self._writing_stack(ids, tokens.mask, causal=True, cache=state.cache, memory=state.memory)

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T - 1, C)`` that predict whole texts, of answers if there are questions.

        Args:
            image_tokens: ``(U, S, C_v)``.
            image_of: index of the image of each of the B texts.
            prompts: B questions; None: the texts are about the images.
            texts: B texts, with start and end tokens.
        """
        state = self.start_writing(image_tokens, image_of, prompts)
        return self.write_on(texts.without_last(), state)
