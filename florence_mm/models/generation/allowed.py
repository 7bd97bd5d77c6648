"""Tokens that may follow in each row of a search.

Shape legend: ``B`` texts, ``V`` vocabulary.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

#: Ids that may follow: a collection, of which a range is fastest; or, for many ids, ``(V,)`` bool on the CPU, True for
#: those that may. A mask shorter than the logits allows none of the ids beyond it. None: all may.
Following = Collection[int] | Tensor | None

#: Function from the ids generated so far, without those given at the start, to the ids that may follow.
AllowedNext = Callable[[Sequence[int]], Following]


@runtime_checkable
class StepwiseAllowed(Protocol):
    """An ``AllowedNext`` that goes on from a state token by token, so that a step takes the same time at any length.

    A state never changes, as several beams may continue one.
    """

    #: state before the first token
    start: Any

    def follow(self, state: Any, token: int) -> Any:
        """Return the state after one more token."""

    def following(self, state: Any) -> Following:
        """Return the ids that may follow in a state."""

    def __call__(self, written: Sequence[int]) -> Following:
        """Return the ids that may follow ``written``."""


class AllowedRows:
    """Asks what may follow in each row of a search, at each step.

    Args:
        allowed: one function for all texts, or one for each; None: all tokens may follow.
        batch_size: B.
        max_length: length of texts at which nothing is asked, as the end is forced.

    Raises:
        ValueError: there is a list of functions, but not of B.
    """

    def __init__(
        self, allowed: AllowedNext | Sequence[AllowedNext | None] | None, batch_size: int, max_length: int
    ) -> None:
        if isinstance(allowed, Sequence) and len(allowed) != batch_size:
            raise ValueError(
                f'there are {batch_size} texts and {len(allowed)} functions of what is allowed; give one, or each text '
                'its own'
            )
        self._of_texts = list(allowed) if isinstance(allowed, Sequence) else [allowed] * batch_size
        self._stepwise = [isinstance(function, StepwiseAllowed) for function in self._of_texts]
        self._max_length = max_length
        self._states: list[Any] = []

    def __call__(
        self, written: Tensor, parents: Tensor | None = None, live: Tensor | None = None
    ) -> Sequence[Following]:
        """Return what may follow in each row; called once for each length, from 0 on.

        Args:
            written: ``(rows, n)`` ids generated so far, on the CPU; rows of one text are consecutive.
            parents: ``(rows,)`` row of the previous call that each row continues; None: rows are unchanged.
            live: ``(rows,)`` bool, rows that go on; nothing is asked about the others. None: all.
        """
        rows, length = written.shape
        if length == self._max_length or not any(function is not None for function in self._of_texts):
            return [None] * rows
        beams = rows // len(self._of_texts)
        states = self._states if parents is None else [self._states[parent] for parent in parents.tolist()]
        tokens = written[:, -1].tolist() if length else []
        following: list[Following] = [None] * rows
        self._states = [None] * rows
        for row in range(rows) if live is None else live.nonzero().squeeze(1).tolist():
            text = row // beams
            function = self._of_texts[text]
            if self._stepwise[text]:
                state = function.follow(states[row], tokens[row]) if length else function.start
                self._states[row], following[row] = state, function.following(state)
            elif function is not None:
                following[row] = function(written[row].tolist())
        return following


def keep_allowed(log_probs: Tensor, following: Sequence[Following]) -> None:
    """Set the log-probabilities of tokens that may not follow to -inf, in place.

    Args:
        log_probs: ``(rows, V)``.
        following: what may follow in each row.

    Raises:
        ValueError: an id that may follow is not among the V.
    """
    rows, named, listed = [], [], []
    for row, allowed in enumerate(following):
        if isinstance(allowed, Tensor):
            check_ids(0, len(allowed) - 1, log_probs.shape[1])
            log_probs[row, : len(allowed)].masked_fill_(~allowed.to(log_probs.device), -torch.inf)
            log_probs[row, len(allowed) :] = -torch.inf
        elif is_run(allowed):
            check_ids(allowed.start, allowed.stop - 1, log_probs.shape[1])
            log_probs[row, : allowed.start] = -torch.inf
            log_probs[row, allowed.stop :] = -torch.inf
        elif allowed is not None:
            listed.append(row)
            named += allowed
            rows += [row] * len(allowed)
    if named:
        check_ids(min(named), max(named), log_probs.shape[1])
    if listed:
        places = tuple(torch.tensor(x, dtype=torch.int64).to(log_probs.device) for x in (rows, named))
        kept = log_probs[places]
        log_probs.index_fill_(0, torch.tensor(listed, dtype=torch.int64).to(log_probs.device), -torch.inf)
        log_probs[places] = kept


def few_tokens(following: Sequence[Following], vocab_size: int, most: int) -> range | Tensor | None:
    """Collect the ids that may follow in some row: a range, or ascending ids ``(n,)``; None if they are not few.

    Args:
        following: what may follow in each row, or None for all; a range may have ids between them that may not.
        vocab_size: V.
        most: most ids that are few.

    Raises:
        ValueError: an id that may follow is not among the V.
    """
    if any(allowed is None for allowed in following):
        return None
    different = list({id(allowed): allowed for allowed in following}.values())
    if different and all(map(is_run, different)):
        found = range(min(run.start for run in different), max(run.stop for run in different))
        check_ids(found.start, found.stop - 1, vocab_size)
        return found if len(found) <= most else None
    parts = []
    for allowed in different:
        if isinstance(allowed, Tensor):
            check_ids(0, len(allowed) - 1, vocab_size)
        if (int(allowed.sum()) if isinstance(allowed, Tensor) else len(allowed)) > most:
            return None
        parts.append(_ids(allowed))
    ids = torch.cat(parts).unique() if parts else torch.zeros(0, dtype=torch.int64)  # ascending
    if not len(ids):
        return None
    check_ids(int(ids[0]), int(ids[-1]), vocab_size)
    return ids if len(ids) <= most else None


def keep_allowed_among(logits: Tensor, tokens: range | Tensor, following: Sequence[Following]) -> None:
    """Set the logits of tokens that may not follow to -inf, in place, where only those of some tokens were computed.

    Args:
        logits: ``(rows, n)``.
        tokens: ids of the n tokens.
        following: what may follow in each row; None: any of them.
    """
    ids = torch.arange(tokens.start, tokens.stop) if isinstance(tokens, range) else tokens
    masks: dict[int, Tensor | None] = {}
    for row, allowed in enumerate(following):
        if id(allowed) not in masks:
            all_may = allowed is None or isinstance(tokens, range) and isinstance(allowed, range) and allowed == tokens
            masks[id(allowed)] = None if all_may else ~_contains(allowed, ids)
        if (forbidden := masks[id(allowed)]) is not None:
            logits[row].masked_fill_(forbidden.to(logits.device), -torch.inf)


def is_run(allowed: Following) -> bool:
    """Whether ids are consecutive: a range that is not empty."""
    return isinstance(allowed, range) and allowed.step == 1 and len(allowed) > 0


def _ids(allowed: Collection[int] | Tensor) -> Tensor:
    if isinstance(allowed, Tensor):
        return allowed.cpu().nonzero().squeeze(1)
    return torch.tensor(list(allowed), dtype=torch.int64)


def _contains(allowed: Collection[int] | Tensor, ids: Tensor) -> Tensor:
    """Which of some ids are allowed, ``(n,)`` bool."""
    if is_run(allowed):
        return (ids >= allowed.start) & (ids < allowed.stop)
    if not isinstance(allowed, Tensor):
        return torch.isin(ids, _ids(allowed))
    allowed = allowed.cpu()
    return allowed[ids.clamp(max=len(allowed) - 1)] & (ids < len(allowed))


def check_ids(lowest: int, highest: int, vocab_size: int) -> None:
    """Check that ids that may follow are of the vocabulary.

    Raises:
        ValueError: one is not.
    """
    if not 0 <= lowest <= highest < vocab_size:
        raise ValueError(
            f'the allowed ids range from {lowest} to {highest} and the logits are of {vocab_size} tokens; '
            'allow ids of the same vocabulary'
        )
