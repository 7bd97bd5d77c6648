"""Base class of tokenizers by transformers.

Shape legend: ``B`` texts, ``T`` tokens of the longest text.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .protocol import CutCounter, TokenBatch, check_text_list, pad_ids


class TransformersTextTokenizer(CutCounter):
    """Base class of the tokenizers that transformers implements.

    A subclass says in :meth:`begins_word` which tokens begin a word.

    Args:
        tokenizer: transformers' tokenizer.
        start, end: names of its start and end tokens, such as ``'bos'`` and ``'eos'``.
        pretrained: where it was read from, for messages.
        kind: whose kind it should be, for messages.
        files: names of the files that it is read from, for messages.
        keep: the part of its tokens that a too long text keeps.

    Raises:
        ValueError: a special token is missing, or there is no vocabulary.
    """

    def __init__(
        self,
        tokenizer: Any,
        start: str,
        end: str,
        pretrained: str | None,
        kind: str,
        files: str,
        keep: Literal['start', 'end'] = 'start',
    ) -> None:
        self._tokenizer, self.keep = tokenizer, keep
        names = (start, end, 'pad', 'mask')
        ids = [getattr(tokenizer, f'{name}_token_id') for name in names]
        tokens = [getattr(tokenizer, f'{name}_token') for name in names]
        unknown = [i == tokenizer.unk_token_id for i in ids]  # what a vocabulary lacks; in OPT's it is a token of use
        lacking = [
            name
            for name, i, token, is_unknown in zip(names, ids, tokens, unknown, strict=True)
            if i is None or (is_unknown and token != tokenizer.unk_token)
        ]
        if lacking:
            raise ValueError(
                f"the tokenizer in {pretrained!r} has no {', '.join(lacking)} token; give a tokenizer of {kind}'s kind"
            )
        self.start_token_id, self.end_token_id, self.pad_token_id, self.mask_token_id = ids
        self.vocab_size = len(tokenizer)
        self.special_ids = frozenset(tokenizer.all_special_ids)
        if self.vocab_size <= len(self.special_ids):
            # transformers makes an empty tokenizer if it finds no files
            raise ValueError(f'{pretrained!r} holds no vocabulary; a tokenizer needs {files}, or tokenizer.json')

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts.

        Args:
            texts: B texts; one that is too long keeps its first tokens (its last, with ``keep='end'``) and the end
                token.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
            ValueError: there are no texts, or ``max_length`` is below 3.
        """
        check_text_list(texts, max_length)
        rows = self._tokenizer(list(texts), add_special_tokens=False)['input_ids']
        room = max_length - 2
        self.count_cut(sum(len(row) > room for row in rows), len(rows), max_length)
        kept = (row[-room:] if self.keep == 'end' else row[:room] for row in rows)
        return pad_ids([[self.start_token_id, *row, self.end_token_id] for row in kept], self.pad_token_id)

    def begins_word(self, token: str) -> bool:
        """Whether a token, as the vocabulary writes it, begins a word within a text."""
        raise NotImplementedError

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word and for special tokens."""
        special = torch.isin(input_ids, torch.tensor(sorted(self.special_ids)))  # (B, T)
        tokens = self._tokenizer.convert_ids_to_tokens(input_ids.flatten().tolist())
        starts = torch.tensor([self.begins_word(token) for token in tokens]).view(input_ids.shape) | special
        starts[:, 0] = True
        starts[:, 1:] |= special[:, :-1]  # the first word of a text
        return starts

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text, without special tokens."""
        return self._tokenizer.decode([int(i) for i in input_ids], skip_special_tokens=True).strip()
