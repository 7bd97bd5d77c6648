"""What a text may be, and the likeliest tokens that may follow it.

Shape legend: ``V`` vocabulary, ``L`` tokens so far with those that the text follows.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from florence_mm.ops.precision import at_least_float32

#: From ids ``(rows, L)``, on the CPU, to the logits of the token after them, ``(rows, V)``. The second argument says of
#: each row which row of the last call it goes on from, ``(rows,)`` int64; None where it is the same.
NextLogits = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class DecodingRules:
    """What a text may be.

    Attributes:
        start_id: the token that it begins with where nothing else is said.
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

    @cached_property
    def banned_ids(self) -> Tensor:
        """The tokens that are never written, as a tensor."""
        return torch.tensor(sorted(self.banned), dtype=torch.int64)

    def first_ids(self, first: Tensor | None, rows: int) -> Tensor:
        """What each of ``rows`` texts follows, ``(rows, P)``: the ids given, or the start token alone."""
        return torch.full((rows, 1), self.start_id) if first is None else first


@dataclass(frozen=True)
class Decoded:
    """What was written.

    Attributes:
        ids: B lists of ids, without those that the texts follow and without the end.
        log_probs: ``(B,)`` float64, of each text with its end.
    """

    ids: list[list[int]]
    log_probs: Tensor


def best_next(logits: Tensor, written: int, rules: DecodingRules, count: int) -> tuple[Tensor, Tensor]:
    """The likeliest tokens after each row.

    Args:
        logits: ``(rows, V)`` of the next token.
        written: tokens written so far.
        rules: what a text may be.
        count: how many tokens.

    Returns:
        log-probabilities (float64) and ids, ``(rows, k)`` each, on the CPU, best first; k is 1 where the text must end.
        They are the model's: none is divided up anew because a token was forbidden.

    Raises:
        ValueError: nothing can be written.
    """
    log_probs = at_least_float32(logits).log_softmax(1)  # (rows, V)
    if written == rules.max_length:
        values, tokens = log_probs[:, [rules.end_id]], torch.full((len(logits), 1), rules.end_id)
    else:
        log_probs.index_fill_(1, rules.banned_ids.to(logits.device), -torch.inf)
        if written < rules.min_length:
            log_probs[:, rules.end_id] = -torch.inf
        values, tokens = log_probs.topk(min(count, log_probs.shape[1]), dim=1)
    values = values.double().cpu()
    if not bool((values[:, 0] > -torch.inf).all()):  # so that NaN is found too
        raise ValueError(
            f'no token can follow the {written} written so far: their logits are not finite, or all tokens are '
            'forbidden; check the weights and the values of the input'
        )
    return values, tokens.cpu()


def before_end(written: Tensor, rules: DecodingRules) -> list[int]:
    """The ids before the first end of a row of written ids."""
    ids = written.tolist()
    return ids[: ids.index(rules.end_id)]
