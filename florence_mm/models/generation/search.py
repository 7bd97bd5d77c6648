"""Writing texts token by token: greedy and beam search.

Both ask a function for the next token's logits and know nothing of the model behind it. (transformers' ``generate``
wants one of its own models with its own cache, which a fusion model is not.)

Scores are the model's: logarithms of the probabilities of the tokens written, the end token included, none of them
divided up anew because a token was forbidden.

Shape legend: ``B`` texts, ``K`` beams a text, ``L`` tokens so far with the start, ``V`` vocabulary.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: From ids ``(rows, L)``, on the CPU, to the logits of the token after them, ``(rows, V)``.
NextLogits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DecodingRules:
    """What a text may be.

    Attributes:
        start_id: the token that it begins with.
        end_id: the token that it ends with.
        max_length: most tokens between start and end; the end is then written whatever its probability.
        min_length: least tokens between start and end.
        banned: tokens that are never written.

    Raises:
        ValueError: lengths that no text has, or a forbidden end.
    """

    start_id: int
    end_id: int
    max_length: int
    min_length: int = 0
    banned: Collection[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if not 0 <= self.min_length <= self.max_length or not self.max_length:
            raise ValueError(
                f'a text cannot have at least {self.min_length} and at most {self.max_length} tokens; give '
                '0 <= min_length <= max_length and max_length of at least 1'
            )
        if self.end_id in self.banned:
            raise ValueError(f'the end token {self.end_id} is forbidden, and no text could end; allow it')


@dataclass(frozen=True)
class Decoded:
    """What was written.

    Attributes:
        ids: B lists of ids, without start and end.
        log_probs: ``(B,)`` float64, of each text with its end.
    """

    ids: list[list[int]]
    log_probs: Tensor


def _best_next(next_logits: NextLogits, ids: Tensor, rules: DecodingRules, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest tokens after each row of ids.

    Returns:
        log-probabilities and ids, ``(rows, k)`` each, on the CPU, best first; k is 1 where the text must end.

    Raises:
        ValueError: nothing can be written.
    """
    logits = next_logits(ids)
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)  # (rows, V)
    length = ids.shape[1] - 1
    if length == rules.max_length:
        values, tokens = log_probs[:, [rules.end_id]], torch.full((len(ids), 1), rules.end_id)
    else:
        banned = [*rules.banned, rules.end_id] if length < rules.min_length else list(rules.banned)
        log_probs[:, banned] = -torch.inf
        values, tokens = log_probs.topk(min(count, log_probs.shape[1]), dim=1)
    values = values.double().cpu()
    if not bool((values[:, 0] > -torch.inf).all()):  # so that NaN is found too
        raise ValueError(
            f'no token can follow the {length} written so far: their logits are not finite, or all tokens are '
            'forbidden; check the weights and the values of the input'
        )
    return values, tokens.cpu()


@torch.no_grad()
def greedy_search(next_logits: NextLogits, batch_size: int, rules: DecodingRules) -> Decoded:
    """Write the likeliest token again and again.

    Args:
        next_logits: see :data:`NextLogits`; rows are the B texts.
        batch_size: B.
        rules: what a text may be.
    """
    ids = torch.full((batch_size, 1), rules.start_id)
    total, done = torch.zeros(batch_size, dtype=torch.float64), torch.zeros(batch_size, dtype=torch.bool)
    while not done.all():
        values, tokens = _best_next(next_logits, ids, rules, 1)
        total += values[:, 0].masked_fill(done, 0)
        token = tokens[:, 0].masked_fill(done, rules.end_id)
        ids = torch.cat([ids, token[:, None]], 1)
        done |= token == rules.end_id
    return Decoded([_between(row, rules) for row in ids], total)


@torch.no_grad()
def beam_search(
    next_logits: NextLogits, batch_size: int, rules: DecodingRules, num_beams: int, length_penalty: float = 1.0
) -> Decoded:
    """Keep the best few beginnings of each text in view.

    The score of a beginning is its log-probability divided by ``length ** length_penalty``, the length in tokens
    written, the end included. At each step the K best of all continuations stay; a text that has ended is one, and
    stays as long as it is among them. A text is decided when no beginning can overtake the best that has ended, however
    it goes on; what other texts are in the batch changes nothing. One beam is greedy search.

    Args:
        next_logits: see :data:`NextLogits`; rows are the ``B * K`` beams, those of a text one after the other.
        batch_size: B.
        rules: what a text may be.
        num_beams: K.
        length_penalty: 0 compares probabilities, which favours short texts; 1 the mean over tokens.

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
    ids = torch.full((*shape, 1), rules.start_id)  # (B, K, L)
    total = torch.full(shape, -torch.inf, dtype=torch.float64)
    total[:, 0] = 0  # at first all beams are equal, so one counts
    lengths, done = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    decided = torch.zeros(batch_size, dtype=torch.bool)
    while not decided.all():
        values, tokens = _best_next(next_logits, ids.flatten(0, 1), rules, num_beams)  # (B K, k)
        values, tokens = values.unflatten(0, shape), tokens.unflatten(0, shape)  # (B, K, k)
        # what has ended goes on in one way, at no cost
        values[done], tokens[done] = -torch.inf, rules.end_id
        values[..., 0].masked_fill_(done, 0)
        lengths = lengths + ~done
        sums = total[..., None] + values
        scores = (sums / (lengths[..., None] ** length_penalty)).flatten(1)  # (B, K k)
        chosen = scores.sort(dim=1, descending=True, stable=True).indices[:, :num_beams]  # (B, K)
        parent = chosen // tokens.shape[2]
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
    return Decoded([_between(row, rules) for row in ids[rows, best]], total[rows, best])


def _between(ids: Tensor, rules: DecodingRules) -> list[int]:
    """The ids after the start and before the first end."""
    written = ids[1:].tolist()
    return written[: written.index(rules.end_id)]
