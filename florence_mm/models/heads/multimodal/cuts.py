"""Cutting of texts at random places, for the prefix language model of SimVLM (arXiv 2108.10904).

Shape legend: ``B`` texts, ``T`` tokens of the longest text with start and end.
"""

import torch
from torch import Tensor

from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids


def draw_cuts(mask: Tensor, generator: torch.Generator | None = None, half: bool = False) -> Tensor:
    """Draw how many words of each text are before its cut, from 0 to all but one with equal probability.

    Args:
        mask: ``(B, T)`` bool, True where a token is real, start and end included.
        generator: source of random numbers on the CPU; None: torch's.
        half: from 1 to half of the words; 0 for a text of one.

    Returns:
        ``(B,)`` int64; 0 for a text without words.
    """
    words = (mask.sum(1) - 2).clamp(min=1)
    if half:
        most = words // 2
        return (1 + torch.rand(len(mask), dtype=torch.float64, generator=generator) * most).long().clamp(max=most)
    return (torch.rand(len(mask), dtype=torch.float64, generator=generator) * words).long()


def cut_texts(tokens: TokenBatch, cuts: Tensor, pad_token_id: int) -> tuple[TokenBatch, TokenBatch]:
    """Cut texts into their beginnings and the rest, each with the start and end tokens of its text.

    Args:
        tokens: B texts with start and end tokens.
        cuts: ``(B,)`` number of tokens behind the start that are before the cut.
        pad_token_id: id of padding.
    """
    rows = zip(tokens.input_ids.tolist(), tokens.mask.sum(1).tolist(), cuts.tolist(), strict=True)
    before, after = [], []
    for ids, length, cut in rows:
        before.append([*ids[: cut + 1], ids[length - 1]])
        after.append([ids[0], *ids[cut + 1 : length]])
    return pad_ids(before, pad_token_id), pad_ids(after, pad_token_id)
