"""Beam search.

Shape legend: ``B`` texts, ``K`` beams per text, ``L`` tokens so far, ``P`` of them given at the start.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .allowed import AllowedRows
from .rules import Decoded, DecodingRules, NextLogits, best_next, decoded


@torch.no_grad()
def beam_search(
    next_logits: NextLogits,
    batch_size: int,
    rules: DecodingRules,
    num_beams: int,
    length_penalty: float = 1.0,
    first_ids: Tensor | None = None,
) -> Decoded:
    """Generate texts by beam search.

    The score of a beam is its log-probability divided by ``length ** length_penalty``, where the length counts
    generated tokens, the end included. At each step the K best continuations are kept; a finished beam stays as long as
    it is among them. A text is complete when no unfinished beam can exceed its best finished one; the result does not
    depend on other texts in the batch. One beam is greedy search.

    Args:
        next_logits: see :data:`~florence_mm.models.generation.rules.NextLogits`; rows are the ``B * K`` beams, those of
            one text consecutive.
        batch_size: B.
        rules: special tokens, lengths, banned and allowed tokens.
        num_beams: K.
        length_penalty: 0 compares log-probabilities, which favours short texts; 1 compares their mean per token.
        first_ids: ``(B, P)`` ids given at the start; None: the start token.

    Returns:
        the best of the K beams of each text. ``log_probs`` are not divided by the length.

    Raises:
        ValueError: ``num_beams`` is below 1, or ``length_penalty`` is negative or not finite.
    """
    if num_beams < 1 or not 0 <= length_penalty < math.inf:  # NaN is neither
        raise ValueError(
            f'num_beams is {num_beams} and length_penalty {length_penalty}; give at least 1, and a finite number of at '
            'least 0'
        )
    shape = (batch_size, num_beams)
    first = rules.first_ids(first_ids, batch_size).numpy()
    # numpy, as a step is a dozen operations on a few numbers each, which torch takes longer to start than to compute
    ids = first[:, None].repeat(num_beams, 1)  # (B, K, P), then (B, K, L)
    total = np.full(shape, -np.inf)
    total[:, 0] = 0  # at first all beams are equal, so only one counts
    lengths, done = np.zeros(shape, np.int64), np.zeros(shape, bool)
    decided = np.zeros(batch_size, bool)
    own_rows = np.arange(batch_size * num_beams).reshape(shape)
    longest = (rules.max_length + 1) ** length_penalty
    of_tokens = np.zeros((*shape, 0))  # (B, K, L - P)
    allowed = AllowedRows(rules.allowed, batch_size, rules.max_length)
    parents: Tensor | None = None
    while not decided.all():
        rows = torch.from_numpy(ids).flatten(0, 1)  # (B K, L)
        live = torch.from_numpy((total > -np.inf) & ~done).flatten()
        written = rows[:, first.shape[1] :]
        following = allowed(written, parents, live)
        # 2 x (B K, k)
        best = best_next(next_logits(rows, parents), written.shape[1], rules, num_beams, following)
        values, tokens = (x.numpy().reshape(*shape, -1) for x in best)  # (B, K, k)
        # a finished beam has one continuation, the end token at no cost
        values[done], tokens[done] = -np.inf, rules.end_id
        values[done, 0] = 0
        lengths = lengths + ~done
        sums = total[..., None] + values
        scores = (sums / (lengths[..., None] ** length_penalty)).reshape(batch_size, -1)  # (B, K k)
        chosen = np.argsort(-scores, axis=1, kind='stable')[:, :num_beams]  # (B, K)
        parent = chosen // tokens.shape[2]
        rows = np.take_along_axis(own_rows, parent, 1)
        parents = None if (rows == own_rows).all() else torch.from_numpy(rows.ravel())
        token = np.take_along_axis(tokens.reshape(batch_size, -1), chosen, 1)
        value = np.take_along_axis(values.reshape(batch_size, -1), chosen, 1)
        total = np.take_along_axis(sums.reshape(batch_size, -1), chosen, 1)
        lengths, done = np.take_along_axis(lengths, parent, 1), np.take_along_axis(done, parent, 1)
        ids = np.concatenate([np.take_along_axis(ids, parent[..., None], 1), token[..., None]], 2)
        of_tokens = np.concatenate([np.take_along_axis(of_tokens, parent[..., None], 1), value[..., None]], 2)
        done |= token == rules.end_id
        # an upper bound: sums only fall, and the divisor is largest at the greatest length
        possible = np.where(done, -np.inf, total).max(1) / longest
        reached = np.where(done, total / lengths**length_penalty, -np.inf).max(1)
        decided |= reached >= possible
        total[decided[:, None] & ~done] = -np.inf
    best = np.where(done, total / lengths**length_penalty, -np.inf).argmax(1)  # (B,)
    rows = np.arange(batch_size)
    written, values = (torch.from_numpy(x) for x in (ids[rows, best, first.shape[1] :], of_tokens[rows, best]))
    return decoded(written, values, torch.from_numpy(total[rows, best]), rules)
