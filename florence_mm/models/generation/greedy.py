"""Greedy search."""

import torch
from torch import Tensor

from .allowed import AllowedRows
from .rules import Decoded, DecodingRules, NextLogits, best_next, decoded


@torch.no_grad()
def greedy_search(
    next_logits: NextLogits, batch_size: int, rules: DecodingRules, first_ids: Tensor | None = None
) -> Decoded:
    """Generate texts by taking the most probable token at each step.

    Args:
        next_logits: see :data:`~florence_mm.models.generation.rules.NextLogits`; rows are the B texts.
        batch_size: B.
        rules: special tokens, lengths, banned and allowed tokens.
        first_ids: ``(B, P)`` ids given at the start; None: the start token.
    """
    ids = rules.first_ids(first_ids, batch_size)  # (B, P)
    before = ids.shape[1]
    total, done = torch.zeros(batch_size, dtype=torch.float64), torch.zeros(batch_size, dtype=torch.bool)
    allowed = AllowedRows(rules.allowed, batch_size, rules.max_length)
    of_tokens = total.new_zeros(batch_size, 0)  # (B, L - P)
    while not done.all():
        following = allowed(ids[:, before:], None, ~done)
        values, tokens = best_next(next_logits(ids, None), ids.shape[1] - before, rules, 1, following)
        of_tokens = torch.cat([of_tokens, values], 1)
        total += values[:, 0].masked_fill(done, 0)
        token = tokens[:, 0].masked_fill(done, rules.end_id)
        ids = torch.cat([ids, token[:, None]], 1)
        done |= token == rules.end_id
    return decoded(ids[:, before:], of_tokens, total, rules)
