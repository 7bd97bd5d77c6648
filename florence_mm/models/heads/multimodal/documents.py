"""Head that learns documents of texts and pictures, and writes behind examples (Flamingo, arXiv 2204.14198).

Shape legend: ``B`` documents, ``U`` pictures, ``T`` tokens, ``N`` learned tokens, ``E`` hidden size, ``V`` vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from florence_mm.models.generation import Decoded
from florence_mm.models.multimodal.documents import DocumentBatch, DocumentWriter
from florence_mm.models.multimodal.protocol import Written
from florence_mm.models.tokenizers.documents import DocumentTokenizer
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

from .caption import FusionCaptionHead
from .reduction import mean_over_processes
from .writer_logits import WriterLogits


def learned_places(tokens: TokenBatch, tokenizer: DocumentTokenizer) -> Tensor:
    """Find the tokens of documents that are learned.

    These are texts behind a picture, with the ``<|endofchunk|>`` that ends each. There is no loss on ``<image>``,
    before the first picture, and between ``<|endofchunk|>`` and the next picture.

    Args:
        tokens: ids and mask ``(B, T)``.
        tokenizer: the tokenizer of the documents.

    Returns:
        ``(B, T)`` bool.

    >>> tokenizer = DocumentTokenizer(dict(type='MaskedCLIPTokenizer', vocab_size=4096))
    >>> document = 'two<|endofchunk|><image>a dog<|endofchunk|>two<image><|endofchunk|>'
    >>> learned_places(tokenizer.tokenize_documents([document], 20), tokenizer).int().tolist()
    [[0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0]]
    """
    ids = tokens.input_ids
    image, end = ids == tokenizer.image_id, ids == tokenizer.chunk_end_id
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last_image = places.masked_fill(~image, -1).cummax(1).values
    ends_before = places.masked_fill(~end, -1).cummax(1).values.roll(1, 1)  # of the tokens before each
    ends_before[:, 0] = -1
    return tokens.mask & ~image & (last_image >= 0) & (ends_before < last_image)


def _shown(tokenizer: DocumentTokenizer, tokens: TokenBatch, pictures_of: Sequence[Sequence[int]]) -> list[int]:
    """Number of pictures whose marks are in each document; the others were cut off."""
    shown = tokenizer.count_pictures(tokens)
    for row, (count, own) in enumerate(zip(shown, pictures_of, strict=True)):
        if count > len(own):
            raise ValueError(
                f'document {row} of the batch has {count} marks of pictures and {len(own)} pictures; give it as many'
            )
    return shown


@MODELS.register_module()
class DocumentHead(FusionCaptionHead):
    """Head of documents: the language model's own loss on what is said of pictures, and writing behind examples.

    With ``weights`` losses are means over the tokens of each source of data (``data_source`` of a sample), times its
    weight: the sum over data sets of the paper (section 2.4), for which it accumulates gradients. They are named
    ``loss_<source>``. Without, ``loss_caption`` is the mean over all tokens. A batch with nothing to learn has a loss
    of exactly 0.

    In prediction a sample's ``document`` is the prompt, such as examples with their answers and a question, and what
    is written up to ``<|endofchunk|>`` is ``pred_answer`` if the sample has ``asked``, else ``pred_caption``. A sample
    without ``document`` is a picture whose caption is written.

    Args:
        weights: weight of each source by name; the paper has 1.0 for interleaved documents and 0.2 for pairs. None: all
            tokens alike.
        tied: predict words as the language model does, and marks by their embeddings.
        transform: a linear layer, GELU and layer norm before.
        learned_bias: the bias on the logits is a parameter.
        writing: how texts are searched or drawn, see :class:`FusionCaptionHead`.

    Raises:
        ValueError: a weight is negative, or an argument is out of range.
    """

    needs = DocumentWriter

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        tied: bool = True,
        transform: bool = False,
        learned_bias: bool = False,
        **writing: Any,
    ) -> None:
        super().__init__(tied=tied, transform=transform, learned_bias=learned_bias, **writing)
        self.weights = dict(weights or {})
        for source, weight in self.weights.items():
            if not weight >= 0:
                raise ValueError(f'weights[{source!r}] of the document head is {weight}; give a number from 0')

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, batch: DocumentBatch) -> dict[str, Tensor]:
        """Compute the weighted cross-entropy of what is learned of each document, by source.

        Raises:
            ValueError: a sample has no source, or one without weight, or more marks of pictures than pictures.
        """
        model = batch.model
        tokens = model.tokenizer.tokenize_documents(batch.documents, model.max_text_len)
        shown = _shown(model.tokenizer, tokens, batch.pictures_of)
        pictures_of = [own[:count] for own, count in zip(batch.pictures_of, shown, strict=True)]
        hidden = model.read_documents(batch.image_tokens, pictures_of, tokens.without_last())  # (B, T - 1, E)
        learned = learned_places(tokens, model.tokenizer)[:, 1:]
        places = learned.flatten().nonzero().squeeze(1)  # (N,)
        target = tokens.input_ids[:, 1:].flatten()[places].to(hidden.device, non_blocking=True)
        logits = self(hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True)))
        losses = self.token_losses(logits, target)
        sources = self._sources(batch)
        rows = learned.nonzero()[:, 0].tolist()
        found: dict[str, Tensor] = {}
        for name in self.weights or ['caption']:  # of all processes alike, which add up each
            own = torch.tensor([sources[row] == name for row in rows], dtype=torch.bool)
            mine = losses[own.to(losses.device)]
            found[f'loss_{name}'] = self.weights.get(name, 1.0) * mean_over_processes(mine.sum(), int(own.sum()))
        right = (logits.argmax(1) == target).float()
        return {**found, 'acc_caption': right.mean() if len(target) else right.sum()}

    def _sources(self, batch: DocumentBatch) -> list[str]:
        """Source of each document, by which losses are weighted."""
        if not self.weights:
            return ['caption'] * len(batch.samples)
        sources = batch.field('data_source')
        if unknown := sorted(set(sources) - set(self.weights)):
            raise ValueError(
                f'the batch has samples of the source {unknown[0]!r}, and weights of the document head has '
                f'{", ".join(self.weights)}; give it a weight there'
            )
        return sources

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: DocumentBatch) -> None:
        """Set ``pred_caption`` and ``caption_score``, or ``pred_answer`` and ``answer_score``, of each sample."""
        if not any('document' in sample for sample in batch.samples):
            super().predict(batch)
            return
        written = self.write_behind(batch.model, batch.image_tokens, batch.pictures_of, batch.documents)
        for sample, text in zip(batch.samples, written, strict=True):
            field, score = ('pred_answer', 'answer_score') if 'asked' in sample else ('pred_caption', 'caption_score')
            sample.set_field(text.text, field)
            sample.set_field(text.score, score)

    @torch.no_grad()
    def write_behind(
        self,
        model: DocumentWriter,
        image_tokens: Tensor,
        pictures_of: Sequence[Sequence[int]],
        documents: Sequence[str],
    ) -> list[Written]:
        """Write behind documents, up to the end of what is said of their last picture.

        Args:
            model: the model with this head.
            image_tokens: ``(U, R, C_v)``.
            pictures_of: indices of the pictures of each document.
            documents: B texts with marks; one that is too long keeps its end, with the pictures there.
        """
        room = model.max_text_len - (self.max_length or 1) - 1
        tokens = model.tokenizer.tokenize_documents(documents, room, ended=False)
        shown, lengths = _shown(model.tokenizer, tokens, pictures_of), tokens.mask.sum(1).tolist()
        kept = [tuple(own[len(own) - count :]) for own, count in zip(pictures_of, shown, strict=True)]
        groups: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):  # prompts of one length are written behind together
            groups.setdefault(length, []).append(row)
        written: list[Written] = [Written('', 0.0)] * len(documents)
        for length, rows in sorted(groups.items()):
            ids = tokens.input_ids[rows, :length]
            decoded = self._write_behind(model, image_tokens, [kept[row] for row in rows], ids)
            for row, text in zip(rows, self.as_texts(model, decoded), strict=True):
                written[row] = text
        return written

    def _write_behind(
        self, model: DocumentWriter, image_tokens: Tensor, pictures_of: Sequence[Sequence[int]], ids: Tensor
    ) -> Decoded:
        beams = self.num_beams
        state = model.start_documents(
            image_tokens, [own for own in pictures_of for _ in range(beams)], ids.repeat_interleave(beams, 0), True
        )
        return self.search(WriterLogits(self, model, state), len(ids), self.rules(model, ids.shape[1]), ids)
