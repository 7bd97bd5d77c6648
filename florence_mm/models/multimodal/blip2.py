"""BLIP-2's first stage: a Q-Former learns from a frozen image encoder what texts say (arXiv 2301.12597, section 3.2).

Learned queries read the tokens of an image. Three objectives train them, each with a mask of its own: contrast, where
queries and texts are apart; matching, where all see each other; and captions, where a text sees the queries and what
stands before it, behind the start token ``[DEC]``. The second stage is in :mod:`.blip2_writer`.

Shape legend: ``U`` images, ``B`` texts, ``Q`` queries, ``S`` image tokens, ``T`` text tokens, ``C`` hidden size, ``C_v``
width of the image encoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text.qformer import QFormer
from florence_mm.models.text.stack import StackMemory
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS, TASK_UTILS

from .base import VisionLanguageModel
from .batch import as_tokens, different_texts, last_output, memory_of_rows, rows_of
from .marks import behind_mark, mark_id
from .protocol import Fused


class QFormerModel(VisionLanguageModel):
    """Base class of models whose Q-Former reads an image encoder, which is frozen.

    Args:
        tokenizer: see :class:`VisionLanguageModel`.
        hidden_size: see :class:`VisionLanguageModel`.
        max_text_len: see :class:`VisionLanguageModel`.
        image_encoder: the backbone, or its config.
        qformer: arguments of :class:`~florence_mm.models.text.qformer.QFormer`.
        freeze_image_encoder: see :class:`BLIP2`.
        keep_frozen: see :class:`BLIP2`.
        vision_norm_eps: see :class:`BLIP2`.
        data_preprocessor: see mmengine.
        init_cfg: see mmengine.
    """

    def __init__(
        self,
        tokenizer: dict | TextTokenizer,
        hidden_size: int,
        max_text_len: int,
        image_encoder: dict | nn.Module,
        qformer: Mapping[str, Any],
        freeze_image_encoder: bool = True,
        keep_frozen: bool = False,
        vision_norm_eps: float = 1e-5,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(tokenizer, hidden_size, max_text_len, data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        check_width(self.image_encoder, 'num_features', type(self).__name__)
        self.freeze_image_encoder, self.keep_frozen = freeze_image_encoder, keep_frozen
        self.ln_vision = nn.LayerNorm(self.image_encoder.num_features, eps=vision_norm_eps)
        self.qformer = QFormer(self.image_encoder.num_features, **qformer)
        if freeze_image_encoder:
            self.image_encoder.requires_grad_(False).eval()

    def frozen_parts(self) -> tuple[str, ...]:
        """Names of the parts that do not learn."""
        return ('image_encoder',) if self.freeze_image_encoder else ()

    def left_out_parts(self) -> tuple[str, ...]:
        """Names of the parts that checkpoints of a training do not hold."""
        return () if self.keep_frozen else self.frozen_parts()

    def train(self, mode: bool = True) -> 'QFormerModel':
        """Set the mode, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_parts():
            getattr(self, name).eval()
        return self

    def encode_frozen(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C_v)``, behind the norm, which learns."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_image_encoder):
            tokens = as_tokens(last_output(self.image_encoder(inputs)))
        return self.ln_vision(tokens)


@MODELS.register_module()
class BLIP2(QFormerModel):
    """BLIP-2's first stage, a model that compares, matches and writes: a reader, embedder, fuser and writer.

    Its three objectives are heads. For pretraining::

        heads=dict(
            itc=dict(type='FusionITCHead', positives='own_text', label_smoothing=0.1),
            itm=dict(type='FusionITMHead', negatives='all'),
            caption=dict(type='FusionCaptionHead', tied=True, label_smoothing=0.1),
        )

    An image is described by several vectors, one of each query; its similarity with a text is that of the nearest. The
    matching head reads the mean of the queries, which gives the mean of their logits.

    Args:
        image_encoder: backbone (or its config), as of :class:`METER`: tokens ``(U, S, C_v)`` as of a ViT,
            ``CLIPVisionTower(out_type='raw', post_norm=False)``, or a map ``(U, C_v, H, W)``.
        tokenizer: the :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config).
        text: arguments of the layers, see :class:`~florence_mm.models.text.qformer.QFormer`; by default those of
            BERT-base with cross-attention in every second layer.
        num_queries: Q.
        heads: heads (or their configs) by name.
        freeze_image_encoder: keep the image encoder as it is, in evaluation mode and without gradients; the norm behind
            it learns.
        keep_frozen: checkpoints of a training hold the frozen image encoder too; False: they hold what was trained
            alone, and loading them needs the encoder's own weights, by its ``init_cfg``.
        vision_norm_eps: epsilon of the norm behind the image encoder: 1e-5 in LAVIS, 1e-6 in transformers.
        dec_token_id: id that takes the place of the start token in writing; None: behind the tokenizer's ids, unless it
            has ``[DEC]``.
        max_text_len: longest text in tokens, start and end included; 32 in BLIP-2.
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
        num_queries: int = 32,
        heads: Mapping[str, dict | nn.Module] | None = None,
        freeze_image_encoder: bool = True,
        keep_frozen: bool = False,
        vision_norm_eps: float = 1e-5,
        dec_token_id: int | None = None,
        max_text_len: int = 32,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        text = {'hidden_size': 768, **(text or {})}
        tokenizer = build_part(tokenizer, TASK_UTILS)
        dec = mark_id(tokenizer, '[DEC]', dec_token_id, 0)
        needed = max(dec, tokenizer.vocab_size - 1) + 1
        qformer = {'num_queries': num_queries, 'text': {'vocab_size': needed, **text}}
        more = (freeze_image_encoder, keep_frozen, vision_norm_eps, data_preprocessor, init_cfg)
        super().__init__(tokenizer, text['hidden_size'], max_text_len, image_encoder, qformer, *more)
        self.dec_token_id, self.pooled_size = dec, self.hidden_size
        check_text_sizes(self.qformer.stack, needed, max_text_len, 'max_text_len')
        self._queries_of: tuple[Tensor, tuple[Tensor, StackMemory]] | None = None
        self._shares = False
        self.add_heads(heads, text.get('init_std', 0.02))

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings, to which heads may be tied."""
        return self.qformer.stack.embeddings.word_embeddings

    # --- the queries --------------------------------------------------------------------------------------------------

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the losses of all heads; contrast and captions share what the queries read."""
        with self._sharing():
            return super().loss(inputs, data_samples)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> list:
        """Predict with all heads; contrast and captions share what the queries read."""
        with self._sharing():
            return super().predict(inputs, data_samples)

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        self._shares = True
        try:
            yield
        finally:
            self._shares, self._queries_of = False, None

    def read_queries(self, image_tokens: Tensor) -> tuple[Tensor, StackMemory]:
        """Let the queries read images ``(U, S, C_v)``; returns ``(U, Q, C)`` and what a text behind them sees."""
        if not self._shares:
            return self.qformer.read(image_tokens)
        if self._queries_of is None or self._queries_of[0] is not image_tokens:
            self._queries_of = image_tokens, self.qformer.read(image_tokens)
        return self._queries_of[1]

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C_v)``, which the queries read."""
        return self.encode_frozen(inputs)

    def pool_image(self, image_tokens: Tensor) -> Tensor:
        """Reduce image tokens ``(U, S, C_v)`` to what the queries make of them, ``(U, Q, C)``."""
        return self.read_queries(image_tokens)[0]

    def pool_text(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` without queries to the vector ``(B, C)`` of the start token; equal texts once."""
        tokens, which = different_texts(self.qformer.stack, tokens)
        return rows_of(self.qformer.stack(tokens.input_ids, tokens.mask)[:, 0], which)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Embed ids ``(B, T)`` to what :meth:`fuse` takes, ``(B, T, C)``."""
        embeddings = self.qformer.stack.embeddings
        device = embeddings.word_embeddings.weight.device
        layout = TokenLayout.of(tokens.mask, device=device)
        return layout.pad(embeddings(tokens.input_ids.to(device, non_blocking=True), layout))

    # --- fusing -------------------------------------------------------------------------------------------------------

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> Fused:
        """Let queries and texts see each other; ``image`` of what is returned are the queries ``(B, Q, C)``.

        Args:
            text_tokens: ``(B, T, C)`` from :meth:`encode_tokens`.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None: all are.
            image_tokens: ``(B, S, C_v)`` from :meth:`encode_image`.
        """
        queries, text = self.qformer.fuse(text_tokens, text_mask, image_tokens)
        return Fused(text, queries, queries.mean(1))

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts behind the queries, which see no text and are computed once for each image.

        Args:
            image_tokens: ``(U, S, C_v)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B prompts of equal length, with which texts begin; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        memory = memory_of_rows(self.read_queries(image_tokens)[1], image_of, len(image_tokens))
        return WriterState.start(image_of, self.first_ids(len(image_of), prompts), memory, cached)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text, which stands behind ``[DEC]``.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        ids = tokens.input_ids if state.length else behind_mark(tokens.input_ids, self.dec_token_id)
        return self.qformer.stack(ids, tokens.mask, causal=True, cache=state.cache, memory=state.memory)
