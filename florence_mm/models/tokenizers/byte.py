"""The bytes of UTF-8 as tokens, as in Perceiver IO (arXiv 2107.14795, section 4.1) and ByT5: no vocabulary file."""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.registry import TASK_UTILS

from .protocol import CutCounter, TokenBatch, check_text_list, pad_ids

_MASK = '<mask>'  # as texts for masked language models write it
_PAD, _BOS, _EOS, _MASKED, _CLS, _SEP = range(6)
_OFFSET = 6  # ids of special tokens before those of the bytes
_WHITE = b' \t\n\r\v\f'


@TASK_UTILS.register_module()
class ByteTokenizer(CutCounter):
    """Tokenizer whose ids are those of the public Perceiver: 6 special tokens, then the 256 bytes.

    A text is ``[CLS]``, its bytes, ``[SEP]``. ``<mask>`` in a text is one mask token, in the place of one byte. A text
    that is too long may be cut inside a letter of several bytes, which then reads as U+FFFD.

    Attributes:
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer(['é!'], max_length=10).input_ids.tolist(), tokenizer.vocab_size
    ([[4, 201, 175, 39, 5]], 262)
    """

    vocab_size = _OFFSET + 256
    start_token_id, end_token_id, pad_token_id, mask_token_id = _CLS, _SEP, _PAD, _MASKED
    special_ids = frozenset(range(_OFFSET))

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts.

        Args:
            texts: the texts.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
            ValueError: there are no texts, or ``max_length`` is below 3.
        """
        check_text_list(texts, max_length)
        rows = [self._ids(text) for text in texts]
        self.count_cut(sum(len(row) > max_length - 2 for row in rows), len(rows), max_length)
        return pad_ids([[_CLS, *row[: max_length - 2], _SEP] for row in rows], _PAD)

    @staticmethod
    def _ids(text: str) -> list[int]:
        # a lone surrogate has no UTF-8
        first, *others = ([_OFFSET + byte for byte in part.encode(errors='replace')] for part in text.split(_MASK))
        for part in others:
            first += [_MASKED, *part]
        return first

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a byte begins a word, with the white space before it; and at specials."""
        special = input_ids < _OFFSET
        white = torch.isin(input_ids, torch.tensor([_OFFSET + byte for byte in _WHITE]))
        after_special, after_white = special.roll(1, 1), white.roll(1, 1)
        after_special[:, 0] = True
        return special | after_special | (white & ~after_white)

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text, without special tokens and white space at its ends; no UTF-8 reads as U+FFFD."""
        ids = input_ids.tolist() if isinstance(input_ids, Tensor) else input_ids
        return bytes(i - _OFFSET for i in ids if i >= _OFFSET).decode(errors='replace').strip()
