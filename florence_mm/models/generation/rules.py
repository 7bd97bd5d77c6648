"""Rules of text generation: special tokens, lengths, banned tokens; and the choice of next tokens under them.

Shape legend: ``V`` vocabulary, ``L`` tokens so far, ``P`` of them given at the start.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from florence_mm.ops.precision import at_least_float32

#: Function from ids ``(rows, L)``, on the CPU, to the logits ``(rows, V)`` of the next token. The second argument,
#: ``(rows,)`` int64, is the row of the previous call that each row continues; None: rows are unchanged.
NextLogits = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class DecodingRules:
    """Special tokens, lengths and banned tokens of generated texts.

    Attributes:
        start_id: start token, used if no first ids are given.
        end_id: end token.
        max_length: most tokens between the given ones and the end token, which is then forced.
        min_length: fewest tokens between the given ones and the end token.
        banned: tokens that are never generated.

    Raises:
        ValueError: the lengths are impossible, or the end token is banned.
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
        """Banned tokens as a sorted tensor."""
        return torch.tensor(sorted(self.banned), dtype=torch.int64)

    def first_ids(self, first: Tensor | None, rows: int) -> Tensor:
        """Return the ids given at the start, ``(rows, P)``: ``first``, or the start token."""
        return torch.full((rows, 1), self.start_id) if first is None else first


@dataclass(frozen=True)
class Decoded:
    """Generated texts.

    Attributes:
        ids: B lists of ids, without those given at the start and without the end token.
        log_probs: ``(B,)`` float64, log-probability of each text with its end token.
    """

    ids: list[list[int]]
    log_probs: Tensor


def best_next(logits: Tensor, written: int, rules: DecodingRules, count: int) -> tuple[Tensor, Tensor]:
    """Return the most probable next tokens of each row that the rules allow.

    Args:
        logits: ``(rows, V)`` of the next token.
        written: number of tokens generated so far.
        rules: special tokens, lengths and banned tokens.
        count: number of tokens to return per row.

    Returns:
        log-probabilities (float64) and ids, ``(rows, k)`` each, on the CPU, best first; k is 1 if the text must end.
        The log-probabilities are not renormalised after tokens are banned.

    Raises:
        ValueError: no token can follow.
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
    """Cut a row of generated ids before its first end token."""
    ids = written.tolist()
    return ids[: ids.index(rules.end_id)]
