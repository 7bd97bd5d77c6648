"""Ids that take the place of the start token of texts and tell a text model its mode, such as BLIP's ``[DEC]``."""

import torch
from torch import Tensor

from florence_mm.models.tokenizers.protocol import TextTokenizer


def mark_id(tokenizer: TextTokenizer, word: str, given: int | None, behind: int) -> int:
    """Id of a mark.

    Args:
        tokenizer: the tokenizer.
        word: the mark.
        given: its id, if a config gives it.
        behind: how many ids are between the tokenizer's and that of the mark, unless the tokenizer has the mark.
    """
    if given is not None:
        return given
    return getattr(tokenizer, 'extra_token_ids', {}).get(word, tokenizer.vocab_size + behind)


def behind_mark(ids: Tensor, mark: int) -> Tensor:
    """Replace the start token of texts ``(B, T)`` by a mark."""
    return torch.cat([torch.full_like(ids[:, :1], mark), ids[:, 1:]], 1)
