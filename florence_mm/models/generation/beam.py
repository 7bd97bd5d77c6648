"""Beam search: the best few beginnings of each text are kept in view.

Shape legend: ``B`` texts, ``K`` beams a text, ``L`` tokens so far with the P that a text follows.
"""

import torch
from torch import Tensor

from .rules import Decoded, DecodingRules, NextLogits, before_end, best_next


@torch.no_grad()
def beam_search(
    next_logits: NextLogits,
    batch_size: int,
    rules: DecodingRules,
    num_beams: int,
    length_penalty: float = 1.0,
    first_ids: Tensor | None = None,
) -> Decoded:
    """Keep the best few beginnings of each text in view.

    The score of a beginning is its log-probability divided by ``length ** length_penalty``, the length in tokens
    written, the end included. At each step the K best of all continuations stay; a text that has ended is one, and
    stays as long as it is among them. A text is decided when no beginning can overtake the best that has ended, however
    it goes on; what other texts are in the batch changes nothing. One beam is greedy search.

    Args:
        next_logits: see :data:`~florence_mm.models.generation.rules.NextLogits`; rows are the ``B * K`` beams, those of
            a text one after the other.
        batch_size: B.
        rules: what a text may be.
        num_beams: K.
        length_penalty: 0 compares probabilities, which favours short texts; 1 the mean over tokens.
        first_ids: ``(B, P)`` ids that the texts follow; None: the start token.

    Returns:
        the best text of each beam. ``log_probs`` are not divided by the length.

    Raises:
        ValueError: no beams, or a negative penalty.
    """
    if num_beams < 1 or length_penalty < 0:
        raise ValueError(
            f'num_beams is {num_beams} and length_penalty {length_penalty}; give at least 1 and at least 0'
        )
    shape = (batch_size, num_beams)
    first = rules.first_ids(first_ids, batch_size)
    ids = first[:, None].repeat(1, num_beams, 1)  # (B, K, P), then (B, K, L)
    total = torch.full(shape, -torch.inf, dtype=torch.float64)
    total[:, 0] = 0  # at first all beams are equal, so one counts
    lengths, done = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    decided = torch.zeros(batch_size, dtype=torch.bool)
    own_rows = torch.arange(batch_size * num_beams).view(shape)
    parents: Tensor | None = None
    while not decided.all():
        logits = next_logits(ids.flatten(0, 1), parents)  # (B K, V)
        values, tokens = best_next(logits, ids.shape[2] - first.shape[1], rules, num_beams)  # (B K, k)
        values, tokens = values.unflatten(0, shape), tokens.unflatten(0, shape)  # (B, K, k)
        # what has ended goes on in one way, at no cost
        values[done], tokens[done] = -torch.inf, rules.end_id
        values[..., 0].masked_fill_(done, 0)
        lengths = lengths + ~done
        sums = total[..., None] + values
        scores = (sums / (lengths[..., None] ** length_penalty)).flatten(1)  # (B, K k)
        chosen = scores.sort(dim=1, descending=True, stable=True).indices[:, :num_beams]  # (B, K)
        parent = chosen // tokens.shape[2]
        rows = own_rows.gather(1, parent)
        parents = None if torch.equal(rows, own_rows) else rows.flatten()
        token = tokens.flatten(1).gather(1, chosen)
        total, lengths, done = sums.flatten(1).gather(1, chosen), lengths.gather(1, parent), done.gather(1, parent)
        ids = torch.cat([ids.take_along_dim(parent[..., None], 1), token[..., None]], 2)
        done |= token == rules.end_id
        # a sum only falls, and is divided by the most at the greatest length
        possible = total.masked_fill(done, -torch.inf).amax(1) / (rules.max_length + 1) ** length_penalty
        reached = (total / lengths**length_penalty).masked_fill(~done, -torch.inf).amax(1)
        decided |= reached >= possible
        total = total.masked_fill(decided[:, None] & ~done, -torch.inf)
    best = (total / lengths**length_penalty).masked_fill(~done, -torch.inf).argmax(1)  # (B,)
    rows = torch.arange(batch_size)
    written = ids[rows, best, first.shape[1] :]
    return Decoded([before_end(row, rules) for row in written], total[rows, best])
