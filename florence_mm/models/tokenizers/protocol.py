"""The protocol of tokenizers for fusion models, and what its implementations share.

Shape legend: ``B`` texts, ``T`` tokens of the longest text of the batch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from mmengine.logging import print_log
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Ids of a batch of texts, on the CPU.

    Attributes:
        input_ids: ``(B, T)`` int64, with start and end tokens, padded at the end.
        mask: ``(B, T)`` bool, True where a token is real.
    """

    input_ids: Tensor
    mask: Tensor

    def without_last(self) -> 'TokenBatch':
        """Leave out the last token of each text: a writer does not read it, as nothing follows it."""
        return TokenBatch(self.input_ids[:, :-1], self.mask[:, 1:])


@runtime_checkable
class TextTokenizer(Protocol):
    """A tokenizer: converts texts to a :class:`TokenBatch`, and ids to text."""

    vocab_size: int
    start_token_id: int
    end_token_id: int
    pad_token_id: int
    mask_token_id: int
    special_ids: frozenset[int]
    num_truncated: int

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts, truncate each to ``max_length`` tokens with start and end, and pad to the longest."""

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word; it is True for special tokens."""

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text, without special tokens."""


class CutCounter:
    """Mixin of tokenizers that counts truncated texts, and logs a warning at the first ones.

    Attributes:
        num_truncated (int): number of truncated texts so far.
    """

    num_truncated = 0

    def count_cut(self, cut: int, texts: int, max_length: int) -> None:
        """Record that ``cut`` of ``texts`` texts had more than ``max_length`` tokens."""
        if cut and not self.num_truncated:
            print_log(
                f'{cut} of {texts} texts have more than {max_length} tokens with start and end, and are cut; later '
                'cuts are only counted (num_truncated of the tokenizer)',
                'current',
                logging.WARNING,
            )
        self.num_truncated += cut


def check_strings(texts: Sequence[str]) -> None:
    """Check that ``texts`` is a list of strings.

    Raises:
        TypeError: it is one string, or contains other objects than strings.
    """
    if isinstance(texts, str):
        raise TypeError(f'the tokenizer takes a list of texts and got one text, {texts!r}; put it into a list')
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'text {index} of {len(texts)} is a {type(text).__name__}, {text!r}; give strings')


def check_text_list(texts: Sequence[str], max_length: int) -> None:
    """Check the arguments of a tokenizer of a fusion model.

    Raises:
        TypeError: ``texts`` is one string, or contains other objects than strings.
        ValueError: there are no texts, or ``max_length`` leaves no token between start and end.
    """
    check_strings(texts)
    if not len(texts):
        raise ValueError('the tokenizer got no texts; give at least one')
    if max_length < 3:
        raise ValueError(f'max_length is {max_length}; give at least 3 tokens (start, one token, end)')


def pad_ids(rows: Sequence[Sequence[int]], pad_token_id: int) -> TokenBatch:
    """Pad rows of ids to one batch."""
    longest = max(map(len, rows))
    # on the CPU, also where a model is being built on the meta device
    ids = torch.tensor([[*row, *[pad_token_id] * (longest - len(row))] for row in rows], device='cpu')  # (B, T)
    real = torch.tensor([[place < len(row) for place in range(longest)] for row in rows], device='cpu')
    return TokenBatch(ids, real)
