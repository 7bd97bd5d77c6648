"""Greedy search."""

import torch
from torch import Tensor

from .few import TextSteps, ids_at
from .rules import Decoded, DecodingRules, NextLogits, check_some_follow


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

    Raises:
        ValueError: no token can follow.
    """
    ids = rules.first_ids(first_ids, batch_size)  # (B, P)
    before, done = ids.shape[1], torch.zeros(batch_size, dtype=torch.bool)
    steps = TextSteps(next_logits, batch_size, rules, before)
    of_tokens = torch.zeros(batch_size, 0, dtype=torch.float64)  # (B, L - P)
    while not done.all():
        log_probs, tokens = steps(ids, done)  # (B, n)
        values, places = (x[:, 0].cpu() for x in log_probs.topk(1, dim=1))
        check_some_follow(values, ids.shape[1] - before)
        of_tokens = torch.cat([of_tokens, values.double()[:, None]], 1)
        token = ids_at(tokens, places).masked_fill(done, rules.end_id)
        ids = torch.cat([ids, token[:, None]], 1)
        done |= token == rules.end_id
    return steps.finish(ids, of_tokens)
