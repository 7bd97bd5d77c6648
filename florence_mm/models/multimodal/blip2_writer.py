"""BLIP-2's second stage: a frozen language model writes about what a Q-Former reads (arXiv 2301.12597, section 3.3).

What the queries make of an image is projected to the width of the language model's embeddings, and stands before the
embedded tokens of a text. A causal model goes on from both; of an encoder-decoder the encoder reads the queries and a
prompt, and the decoder writes. Only the text is learned.

Shape legend: ``U`` images, ``B`` texts, ``Q`` queries, ``T`` text tokens, ``E`` width of the language model's
embeddings, ``V`` its vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import build_part, check_text_sizes
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.text.protocol import LanguageModel, ReadBefore, check_language_model
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS

from .batch import different_pairs, rows_of
from .blip2 import QFormerModel
from .teaching import teach_after_prompts


@MODELS.register_module()
class BLIP2Writer(QFormerModel):
    """BLIP-2's second stage, a model that writes; it implements the protocols reader and writer.

    The language model computes logits itself, so that heads have no layers. Image encoder and language model are
    frozen, in evaluation mode; the Q-Former, the norm before it and the projection behind it learn.

    Args:
        image_encoder: see :class:`BLIP2`.
        language_model: a :class:`~florence_mm.models.text.protocol.LanguageModel` or its config.
        tokenizer: the language model's :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config).
            Its end token ends texts: with OPT a line break.
        text: arguments of the Q-Former's layers, those of the first stage; words are left out.
        num_queries: Q.
        heads: heads (or their configs) by name, such as ``dict(caption=dict(type='FusionCaptionHead'))``.
        freeze_image_encoder: see :class:`BLIP2`.
        keep_frozen: checkpoints of a training hold the image encoder and the language model too; False: they hold what
            was trained alone, and loading them needs these parts' own weights, by ``pretrained`` or ``init_cfg``.
        vision_norm_eps: see :class:`BLIP2`.
        max_text_len: longest text in tokens, start and end included.
        max_prompt_len: longest prompt in tokens, start and end included, of a language model with an encoder.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together, or an argument is unknown.
    """

    gives_logits = True

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        language_model: dict | LanguageModel,
        tokenizer: dict | TextTokenizer,
        text: Mapping[str, Any] | None = None,
        num_queries: int = 32,
        heads: Mapping[str, dict | nn.Module] | None = None,
        freeze_image_encoder: bool = True,
        keep_frozen: bool = False,
        vision_norm_eps: float = 1e-5,
        max_text_len: int = 32,
        max_prompt_len: int = 32,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        language_model = build_part(language_model)
        check_language_model(language_model, LanguageModel, 'BLIP2Writer')
        qformer = {'num_queries': num_queries, 'text': text, 'reads_texts': False}
        more = (freeze_image_encoder, keep_frozen, vision_norm_eps, data_preprocessor, init_cfg)
        super().__init__(tokenizer, language_model.vocab_size, max_text_len, image_encoder, qformer, *more)
        self.language_model = language_model
        self.prompts_apart, self.max_prompt_len = language_model.encodes, max_prompt_len
        self.image_dims = language_model.embed_dims
        length = max_text_len + (0 if language_model.encodes else num_queries)
        check_text_sizes(language_model, self.tokenizer.vocab_size, length, 'queries and max_text_len')
        self.language_projection = nn.Linear(self.qformer.query_tokens.shape[2], language_model.embed_dims)
        std = (text or {}).get('init_std', 0.02)
        init_bert_weights(self.language_projection, std)
        self.language_model.requires_grad_(False).eval()
        self.add_heads(heads, std)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Word embeddings of the language model."""
        return self.language_model.word_embeddings

    def frozen_parts(self) -> tuple[str, ...]:
        """Names of the parts that do not learn."""
        return (*super().frozen_parts(), 'language_model')

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to embeddings ``(U, Q, E)`` for the language model."""
        queries, _ = self.qformer.read(self.encode_frozen(inputs))
        return self.language_projection(queries)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, E)``, as the language model does."""
        return self.language_model.embed(tokens.input_ids)

    def tokenize_prompts(self, prompts: Sequence[str]) -> TokenBatch:
        """Convert prompts to ids; those for an encoder are cut to ``max_prompt_len``."""
        return self.tokenizer(prompts, self.max_prompt_len) if self.prompts_apart else self.tokenize(prompts)

    # --- writing ------------------------------------------------------------------------------------------------------

    def first_ids(self, rows: int, prompts: TokenBatch | None) -> Tensor:
        """Return the ids given at the start ``(rows, P)``: the start token, or the prompts of a causal model."""
        return super().first_ids(rows, None if self.prompts_apart else prompts)

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts.

        Args:
            image_tokens: ``(U, Q, E)`` from :meth:`encode_image`.
            image_of: index of the image of each of the B texts.
            prompts: B prompts: of a causal model of equal length, with which the texts begin; of one with an encoder
                of any lengths. None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        before = self._read(image_tokens, image_of, prompts)
        state = WriterState.start(image_of, self.first_ids(len(image_of), prompts), before, cached=False)
        state.caches = (self.language_model.cache(before),) if cached else ()
        return state

    def _read(self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None) -> ReadBefore:
        """What stands before each text: its image, and with an encoder its prompt; equal pairs are encoded once."""
        if not self.prompts_apart:
            return self.language_model.read(rows_of(image_tokens, image_of))
        if prompts is None:  # an empty one
            ids = torch.full((len(image_of), 2), self.tokenizer.end_token_id)
            prompts = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
        first, which = different_pairs(self.language_model, image_of, prompts)
        about = rows_of(image_tokens, [image_of[row] for row in first])  # (R, Q, E)
        ids, real = prompts.input_ids[first, 1:], prompts.mask[first, 1:]  # a language model's have no start token
        words = self.language_model.embed(ids)
        tokens = torch.cat([about.to(words.dtype), words], 1)  # (R, Q + P, E)
        mask = torch.cat([real.new_ones(about.shape[:2]), real], 1)
        read = self.language_model.read(tokens, mask)
        return ReadBefore(rows_of(read.tokens, which), None if read.mask is None else rows_of(read.mask, which))

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the logits ``(B, n, V)`` of what follows the next n tokens of each text.

        Args:
            tokens: without cache, all tokens of the texts, with padding at the end; with cache, those after the cached
                ones, without padding.
            state: state from :meth:`start_writing`.
        """
        return self.language_model.next_logits(tokens.input_ids, state.memory, state.cache)

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the logits ``(B, T - 1, V)`` that predict whole texts, see the protocol's ``Writer.teach``."""
        if not self.prompts_apart:
            return teach_after_prompts(self, image_tokens, image_of, prompts, texts)
        return self.write_on(texts.without_last(), self.start_writing(image_tokens, image_of, prompts))
