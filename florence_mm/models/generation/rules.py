"""Rules of text generation: special tokens, lengths, banned and allowed tokens; and the next tokens under them.

Shape legend: ``V`` vocabulary, ``L`` tokens so far, ``P`` of them given at the start.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from florence_mm.ops.precision import at_least_float32

from .allowed import AllowedNext, Following, keep_allowed

#: Function from ids ``(rows, L)``, on the CPU, to the logits ``(rows, V)`` of the next token. The second argument,
#: ``(rows,)`` int64, is the row of the previous call that each row continues; None: rows are unchanged.
NextLogits = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class DecodingRules:
    """Special tokens, lengths, banned and allowed tokens of generated texts.

    Attributes:
        start_id: start token, used if no first ids are given.
        end_id: end token.
        max_length: most tokens between the given ones and the end token, which is then forced.
        min_length: fewest tokens between the given ones and the end token.
        banned: tokens that are never generated.
        allowed: restricts the next tokens by those before them, such as a
            :class:`~florence_mm.models.generation.tries.TokenTrie` to a list of texts; None: no restriction. A list has
            one for each text. The end that ``max_length`` forces needs no permission.

    Raises:
        ValueError: the lengths are impossible, or the end token is banned.
    """

    start_id: int
    end_id: int
    max_length: int
    min_length: int = 0
    banned: Collection[int] = field(default_factory=frozenset)
    allowed: AllowedNext | Sequence[AllowedNext | None] | None = None

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
        token_log_probs: B lists of the log-probabilities of the ids and of the end token.
    """

    ids: list[list[int]]
    log_probs: Tensor
    token_log_probs: list[list[float]]


def permitted_log_probs(logits: Tensor, length: int, rules: DecodingRules, following: Sequence[Following]) -> Tensor:
    """Compute the log-probabilities of the next token, -inf where the rules forbid it; they are not renormalised.

    Args:
        logits: ``(rows, V)`` of the next token.
        length: number of tokens generated so far.
        rules: special tokens, lengths and banned tokens.
        following: what ``rules.allowed`` lets follow in each row, see
            :class:`~florence_mm.models.generation.allowed.AllowedRows`.

    Returns:
        ``(rows, V)`` of fp32 at least, on the device of the logits.

    Raises:
        ValueError: an id that may follow is not in the vocabulary.
    """
    log_probs = at_least_float32(logits).log_softmax(1)
    if length == rules.max_length:
        end = log_probs[:, rules.end_id].clone()
        log_probs.fill_(-torch.inf)
        log_probs[:, rules.end_id] = end
        return log_probs
    log_probs.index_fill_(1, rules.banned_ids.to(logits.device), -torch.inf)
    if length < rules.min_length:
        log_probs[:, rules.end_id] = -torch.inf
    keep_allowed(log_probs, following)
    return log_probs


def best_next(
    logits: Tensor, length: int, rules: DecodingRules, count: int, following: Sequence[Following]
) -> tuple[Tensor, Tensor]:
    """Return the most probable next tokens of each row that the rules allow.

    Args:
        logits: ``(rows, V)`` of the next token.
        length: number of tokens generated so far.
        rules: special tokens, lengths and banned tokens.
        count: number of tokens to return per row.
        following: see :func:`permitted_log_probs`.

    Returns:
        log-probabilities (float64) and ids, ``(rows, k)`` each, on the CPU, best first; k is 1 if the text must end.
        The log-probabilities are not renormalised after tokens are forbidden, and -inf where fewer than k are allowed.

    Raises:
        ValueError: no token can follow.
    """
    log_probs = permitted_log_probs(logits, length, rules, following)
    count = 1 if length == rules.max_length else min(count, log_probs.shape[1])
    values, tokens = log_probs.topk(count, dim=1)
    values = values.double().cpu()
    check_some_follow(values[:, 0], length)
    return values, tokens.cpu()


def check_some_follow(best: Tensor, written: int) -> None:
    """Check that a token can follow in each row.

    Args:
        best: ``(rows,)``, the highest log-probability of a next token.
        written: number of tokens generated so far.

    Raises:
        ValueError: a row has none.
    """
    if not bool((best > -torch.inf).all()):  # so that NaN is found too
        raise ValueError(
            f'no token can follow the {written} written so far: their logits are not finite, or all tokens are '
            'forbidden; check the weights and the values of the input'
        )


def decoded(written: Tensor, token_log_probs: Tensor, log_probs: Tensor, rules: DecodingRules) -> Decoded:
    """Cut generated texts before their first end tokens.

    Args:
        written: ``(B, n)`` ids without those given at the start.
        token_log_probs: ``(B, n)`` log-probabilities of the ids.
        log_probs: ``(B,)``, of the texts.
        rules: has the end token.
    """
    rows = written.tolist()
    lengths = [row.index(rules.end_id) for row in rows]
    ids = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    of_tokens = zip(token_log_probs.tolist(), lengths, strict=True)
    return Decoded(ids, log_probs, [row[: length + 1] for row, length in of_tokens])
