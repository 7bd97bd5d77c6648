"""Batches of documents with several pictures each, and the protocol of models that read them.

Shape legend: ``B`` documents, ``M`` most pictures of a document, ``U`` different pictures, ``T`` tokens, ``S`` image
tokens, ``C`` hidden size.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from florence_mm.language.documents import write_document
from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TokenBatch

from .batch import FusionBatch, find_equal
from .protocol import Writer


@runtime_checkable
class DocumentWriter(Writer, Protocol):
    """A writer of documents, in which pictures and texts alternate; its tokenizer has ``tokenize_documents``."""

    def start_documents(
        self, image_tokens: Tensor, pictures_of: Sequence[Sequence[int]], first_ids: Tensor, cached: bool = False
    ) -> WriterState:
        """Start writing behind B documents.

        Args:
            image_tokens: ``(U, S, C)``.
            pictures_of: indices of the pictures of each document, in order.
            first_ids: ``(B, P)`` ids of the documents, with the document's start, which :meth:`write_on` gets first.
            cached: cache keys and values.
        """

    def read_documents(self, image_tokens: Tensor, pictures_of: Sequence[Sequence[int]], tokens: TokenBatch) -> Tensor:
        """Compute the hidden states ``(B, T, C)`` of whole documents, each of which predicts the next token."""


class DocumentBatch(FusionBatch):
    """Documents with several pictures each, or samples of one picture as of :class:`FusionBatch`.

    A sample with ``num_pictures`` has them as ``(3, M, H, W)``, of which the first ``num_pictures`` are used, and its
    text with marks as ``document``. Any other sample is the document of its picture and its ``text``.

    Args:
        model, samples, image_of, image_tokens: see :class:`FusionBatch`.
        inputs: ``(B, 3, M, H, W)``, or what :class:`FusionBatch` takes.

    Attributes:
        pictures_of: indices of the pictures of each document, below U.

    Raises:
        ValueError: some samples have ``num_pictures`` and others not, or more than there are; see also
            :class:`FusionBatch`.
    """

    def __init__(
        self,
        model: DocumentWriter,
        inputs: Tensor | None,
        samples: Sequence[Any],
        image_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> None:
        self.pictures_of: list[list[int]] = []
        if image_of is None and inputs is not None and any('num_pictures' in sample for sample in samples):
            inputs, self.pictures_of = _different_pictures(inputs, samples)
            image_of = [pictures[-1] if pictures else None for pictures in self.pictures_of]
        super().__init__(model, inputs, samples, image_of, image_tokens)
        if not self.pictures_of:
            self.pictures_of = [[] if image is None else [image] for image in self.image_of]

    @cached_property
    def documents(self) -> list[str]:
        """The text with marks of each sample."""
        return [
            sample.document if 'document' in sample else write_document([*([None] * bool(pictures)), sample.text])
            for sample, pictures in zip(self.samples, self.pictures_of, strict=True)
        ]


def _different_pictures(inputs: Tensor, samples: Sequence[Any]) -> tuple[Tensor, list[list[int]]]:
    """Find the U different pictures ``(U, 3, H, W)`` of documents ``(B, 3, M, H, W)``, and those of each document."""
    counts = [int(sample.get('num_pictures', -1)) for sample in samples]
    if inputs.ndim != 5 or len(inputs) != len(counts) or min(counts) < 0 or max(counts) > inputs.shape[2]:
        raise ValueError(
            f'the batch has pictures of shape {tuple(inputs.shape)} and num_pictures of its samples is {counts}; pack '
            'all of them by PackDocument, with one max_pictures'
        )
    place = [row * inputs.shape[2] + number for row, count in enumerate(counts) for number in range(count)]
    # (B, 3, M, H, W) -> (B, M, 3, H, W) -> (B M, 3, H, W) -> (sum of counts, 3, H, W)
    pictures = inputs.transpose(1, 2).flatten(0, 1)[torch.tensor(place, dtype=torch.long, device=inputs.device)]
    if not place:
        return pictures, [[] for _ in counts]
    first, which = find_equal(pictures)
    if len(first) < len(pictures):
        pictures = pictures.index_select(0, torch.tensor(first).to(pictures.device, non_blocking=True))
    numbers = iter(which)
    return pictures, [[next(numbers) for _ in range(count)] for count in counts]
