"""Flamingo, which teaches a frozen language model to read pictures between texts (arXiv 2204.14198).

A resampler reads each picture to a number of latents (section 2.1). Gated cross-attention blocks before some layers of
the language model let each token read the last picture before it (sections 2.2 and 2.3); text before any picture reads
zeros. Gates are 0 at first, so that training begins with the language model as it is. Image encoder and language
model are frozen; what learns is the resampler, the blocks and the embeddings of the two marks of
:class:`~florence_mm.models.tokenizers.documents.DocumentTokenizer`.

Choices of ours where paper and public code differ or are silent: the activation is the paper's squared ReLU and not
GELU, unless ``act='gelu'``; blocks stand before the layers n - 1, 2 n - 1 ..., as in open_flamingo; outputs of the
marks learn too where a language model does not tie them to its embeddings.

Shape legend: ``U`` pictures, ``B`` documents, ``M`` pictures of a document, ``R`` latents of a picture, ``T`` tokens,
``C_v`` width of the image encoder, ``E`` width of word embeddings, ``V`` words, ``H`` heads, ``D`` channels of a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.base import build_part, check_text_sizes, check_width
from florence_mm.models.generation.cache import CacheBehind
from florence_mm.models.generation.state import WriterState
from florence_mm.models.layers.latent_attention import LatentAttention
from florence_mm.models.layers.resampler import Resampler
from florence_mm.models.layers.transformer import KeysValues
from florence_mm.models.text.protocol import LayeredLanguageModel, check_apart, check_language_model
from florence_mm.models.tokenizers.documents import DocumentTokenizer
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS, TASK_UTILS

from .base import VisionLanguageModel
from .batch import as_tokens, last_output
from .documents import DocumentBatch


class WordsAndMarks(nn.Module):
    """Word embeddings of a language model, and behind them those of marks, which learn.

    Args:
        language: the language model.
        num_words: V, words of the tokenizer; rows of the language model behind them are padding.
        num_marks: number of marks.

    Attributes:
        num_embeddings (int): words and marks.
        marks (nn.Parameter): embeddings ``(marks, E)``.
        mark_outputs (nn.Parameter): by which marks are predicted; None: by their embeddings.
    """

    def __init__(self, language: LayeredLanguageModel, num_words: int, num_marks: int) -> None:
        super().__init__()
        self._language = (language,)  # in a tuple: it is a part of the model, not of this one
        self.num_words, self.num_embeddings = num_words, num_words + num_marks
        self.marks = _drawn_like(language.word_embeddings.weight, num_marks)
        self.mark_outputs = None
        if language.outputs() is not language.word_embeddings.weight:
            self.mark_outputs = _drawn_like(language.outputs(), num_marks)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids ``(B, T)`` to ``(B, T, E)``."""
        words = self._language[0].embed(ids.clamp(max=self.num_words - 1))
        marks = F.embedding((ids - self.num_words).clamp(min=0), self.marks)
        return torch.where((ids >= self.num_words)[..., None], marks, words)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute logits ``(N, words and marks)`` from hidden states ``(N, E)``."""
        words = self._language[0].logits(hidden)[..., : self.num_words]
        return torch.cat([words, F.linear(hidden, self.marks if self.mark_outputs is None else self.mark_outputs)], 1)

    @property
    def weight(self) -> Tensor:
        """Weights ``(words and marks, E)`` of the outputs, joined anew at each use."""
        outputs = self._language[0].outputs()[: self.num_words]
        return torch.cat([outputs, self.marks if self.mark_outputs is None else self.mark_outputs])


def _drawn_like(table: Tensor, rows: int) -> nn.Parameter:
    """Draw rows with mean and deviation of a table."""
    table = table.detach()
    return nn.Parameter(table.mean(0) + table.std(0) * torch.randn(rows, table.shape[1], device=table.device))


@dataclass
class DocumentCache(CacheBehind):
    """Cache of the language model, behind whose first tokens the model may put a start, and the pictures shown so far.

    Attributes:
        shown: ``(B,)`` pictures that each document has shown so far.
    """

    shown: Tensor | None = None

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``."""
        super().select(rows)
        if self.shown is not None:
            self.shown = self.shown[rows.to(self.shown.device)]


@dataclass(frozen=True)
class Pictures:
    """What the tokens of B documents read.

    Attributes:
        keys_values: by layer, keys and values ``(B, H, M R, D)`` of the block before it.
        counts: ``(B,)`` pictures of each document.
        latents: R.
        begun: tokens begin with the document's start; otherwise it is put before them.
    """

    keys_values: Mapping[int, KeysValues]
    counts: Tensor
    latents: int
    begun: bool


@MODELS.register_module()
class FlorenceFlamingo(VisionLanguageModel):
    """Flamingo, a model that writes about the pictures of a document: a reader, a writer and a document writer.

    Args:
        image_encoder: backbone (or its config), as of :class:`METER`: a map ``(U, C_v, H, W)``, or tokens
            ``(U, N, C_v)``.
        language_model: a causal :class:`~florence_mm.models.text.protocol.LayeredLanguageModel` (or its config).
        tokenizer: the language model's :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` (or its config),
            behind whose ids the marks are put; or a :class:`DocumentTokenizer`.
        resampler: arguments of :class:`~florence_mm.models.layers.resampler.Resampler`; by default 6 layers of 8 heads
            of width 64 and 64 latents.
        every: n; a block stands before every n-th layer.
        num_heads: H of the blocks.
        head_dims: D of the blocks.
        act: activation of resampler and blocks, ``'squared_relu'`` as in the paper or ``'gelu'`` as in open_flamingo.
        heads: heads (or their configs) by name, such as ``dict(caption=dict(type='DocumentHead'))``.
        freeze_image_encoder: keep the image encoder as it is, in evaluation mode and without gradients.
        freeze_language_model: the same of the language model.
        keep_frozen: checkpoints of a training hold the frozen parts too; False: they hold what was trained alone, and
            loading them needs the parts' own weights, by ``init_cfg`` or ``pretrained``.
        max_text_len: longest document in tokens, start and end included; 256 in the paper.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the parts do not fit together, or a number is out of range.
    """

    needs_pictures = False

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        language_model: dict | LayeredLanguageModel,
        tokenizer: dict | TextTokenizer,
        resampler: Mapping[str, Any] | None = None,
        every: int = 1,
        num_heads: int = 8,
        head_dims: int = 64,
        act: str = 'squared_relu',
        heads: Mapping[str, dict | nn.Module] | None = None,
        freeze_image_encoder: bool = True,
        freeze_language_model: bool = True,
        keep_frozen: bool = False,
        max_text_len: int = 256,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        tokenizer = build_part(tokenizer, TASK_UTILS)
        if not isinstance(tokenizer, DocumentTokenizer):
            tokenizer = DocumentTokenizer(tokenizer)
        language = build_part(language_model)
        check_language_model(language, LayeredLanguageModel, 'FlorenceFlamingo', 'a causal one, such as OPT')
        check_apart(language, 'FlorenceFlamingo')
        super().__init__(tokenizer, language.embed_dims, max_text_len, data_preprocessor, init_cfg)
        self.language_model = language
        check_text_sizes(language, len(tokenizer.text_ids), max_text_len, 'max_text_len')
        if not 1 <= every <= language.num_layers:
            raise ValueError(
                f'every is {every} for a language model of {language.num_layers} layers; give a number from 1 to that'
            )
        self.image_encoder, self.act = build_part(image_encoder), act
        check_width(self.image_encoder, 'num_features', 'FlorenceFlamingo')
        self.image_dims = self.image_encoder.num_features
        self.resampler = Resampler(self.image_dims, **{'act': act, **(resampler or {})})
        sizes = {'token_dims': self.image_dims, 'qk_channels': num_heads * head_dims}
        kind = {'norm_tokens': False, 'gated': True, 'bias': False, 'act': act}
        self.blocks = nn.ModuleDict(
            {
                str(layer): LatentAttention(language.layer_dims, num_heads, **sizes, **kind)
                for layer in range(every - 1, language.num_layers, every)
            }
        )
        self.marks = WordsAndMarks(language, len(tokenizer.text_ids), tokenizer.vocab_size - len(tokenizer.text_ids))
        self.freeze_image_encoder, self.freeze_language_model = freeze_image_encoder, freeze_language_model
        self.keep_frozen = keep_frozen
        for name in self.frozen_parts():
            getattr(self, name).requires_grad_(False).eval()
        self.add_heads(heads)

    @property
    def word_embeddings(self) -> WordsAndMarks:
        """Word embeddings, to which heads may be tied."""
        return self.marks

    def frozen_parts(self) -> tuple[str, ...]:
        """Names of the parts that do not learn."""
        frozen = {'image_encoder': self.freeze_image_encoder, 'language_model': self.freeze_language_model}
        return tuple(name for name, is_frozen in frozen.items() if is_frozen)

    def left_out_parts(self) -> tuple[str, ...]:
        """Names of the parts that checkpoints of a training do not hold."""
        return () if self.keep_frozen else self.frozen_parts()

    def train(self, mode: bool = True) -> 'FlorenceFlamingo':
        """Set the mode, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_parts():
            getattr(self, name).eval()
        return self

    def make_batch(
        self,
        inputs: Tensor | None,
        samples: Sequence[Any],
        image_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> DocumentBatch:
        """Make the batch that heads get, see :class:`DocumentBatch`."""
        return DocumentBatch(self, inputs, samples, image_of, image_tokens)

    # --- reading ------------------------------------------------------------------------------------------------------

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed pictures ``(U, 3, H, W)``, or videos ``(U, 3, F, H, W)``, to latents ``(U, R, C_v)``."""
        frames = inputs.transpose(1, 2).flatten(0, 1) if inputs.ndim == 5 else inputs  # (U F, 3, H, W)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_image_encoder):
            tokens = as_tokens(last_output(self.image_encoder(frames)))  # (U F, S, C_v)
        return self.resampler(tokens.unflatten(0, (len(inputs), -1)) if inputs.ndim == 5 else tokens)

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` of texts without pictures, from left to right, to ``(B, T, E)``."""
        empty = self.marks.marks.new_zeros(0, 1, self.image_dims)
        return self.write_on(tokens, self._start(empty, [[]] * len(tokens.input_ids), None, begun=False))

    # --- writing ------------------------------------------------------------------------------------------------------

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int | None],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts, each about one picture, whose mark is their start.

        Args:
            image_tokens: ``(U, R, C_v)`` from :meth:`encode_image`.
            image_of: index of the picture of each of the B texts; None: it has none.
            prompts: B prompts of equal length, with which texts begin; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets.
        """
        pictures_of = [[] if image is None else [image] for image in image_of]
        first = self.first_ids(len(image_of), prompts)
        return self._start(image_tokens, pictures_of, first, cached, begun=False)

    def start_documents(
        self, image_tokens: Tensor, pictures_of: Sequence[Sequence[int]], first_ids: Tensor, cached: bool = False
    ) -> WriterState:
        """Start writing behind B documents, see the protocol's ``DocumentWriter.start_documents``."""
        return self._start(image_tokens, pictures_of, first_ids, cached, begun=True)

    def read_documents(self, image_tokens: Tensor, pictures_of: Sequence[Sequence[int]], tokens: TokenBatch) -> Tensor:
        """Compute the hidden states ``(B, T, E)`` of whole documents, each of which predicts the next token."""
        return self.write_on(tokens, self._start(image_tokens, pictures_of, tokens.input_ids[:, :1]))

    def _start(
        self,
        image_tokens: Tensor,
        pictures_of: Sequence[Sequence[int]],
        first_ids: Tensor | None,
        cached: bool = False,
        begun: bool = True,
    ) -> WriterState:
        counts = list(map(len, pictures_of))
        most = max([1, *counts])  # of documents without pictures, zeros that nothing reads
        if not len(image_tokens):
            image_tokens = image_tokens.new_zeros(1, *image_tokens.shape[1:])
        index = torch.tensor([[*own, *[0] * (most - len(own))] for own in pictures_of]).to(image_tokens.device)

        def of_documents(x: Tensor) -> Tensor:  # (U, H, R, D) -> (B, M, H, R, D) -> (B, H, M R, D)
            return x[index].transpose(1, 2).flatten(2, 3)

        keys_values = {}
        for layer, block in self.blocks.items():
            key, value = block.keys_values(image_tokens)
            keys_values[int(layer)] = (of_documents(key), of_documents(value))
        memory = Pictures(keys_values, torch.tensor(counts).to(image_tokens.device), image_tokens.shape[1], begun)
        caches = (DocumentCache(self.language_model.cache(), 0 if begun else 1),) if cached else ()
        return WriterState([tuple(own) for own in pictures_of], first_ids, memory, caches)

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, E)`` of the next n tokens of each text or document.

        Args:
            tokens: without cache, all tokens, with padding at the end; with cache, those after the cached ones, without
                padding.
            state: state from :meth:`start_writing` or :meth:`start_documents`.
        """
        memory: Pictures = state.memory
        cache: DocumentCache | None = state.caches[0] if state.caches else None
        device = self.marks.marks.device
        ids = tokens.input_ids.to(device, non_blocking=True)
        at_start = cache is None or not cache.length
        put = int(at_start and not memory.begun)
        if put:
            ids = F.pad(ids, (1, 0), value=self.tokenizer.document_start_id)
        shown = (ids == self.tokenizer.image_id).cumsum(1)  # (B, T)
        if not at_start:
            shown = shown + cache.shown[:, None]
        if cache is not None:
            cache.shown = shown[:, -1]
        inner = None if cache is None else cache.inner
        hidden = self.language_model.run(self.marks.embed(ids), inner, self._read_before(memory, shown))
        return hidden[:, put:]

    def _read_before(self, memory: Pictures, shown: Tensor) -> Any:
        most = next(iter(memory.keys_values.values()))[0].shape[2] // memory.latents
        numbers = torch.arange(1, most + 1, device=shown.device)
        # a mark may stand for no picture, as in a text that is read alone
        mask = (shown[..., None] == numbers) & (numbers <= memory.counts[:, None, None])  # (B, T, M)
        mask = mask.repeat_interleave(memory.latents, 2)  # (B, T, M R)

        def before_layer(number: int, x: Tensor) -> Tensor:
            if number not in memory.keys_values:
                return x
            return self.blocks[str(number)](x, mask=mask, keys_values=memory.keys_values[number])

        return before_layer
