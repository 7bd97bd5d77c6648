"""Steps of a search at which few tokens may follow: their logits alone are computed, and probabilities at the end.

A choice among few tokens needs no sum over the vocabulary, the probability of the chosen one does. For it, the states
of all such steps are multiplied with the vocabulary at once, which takes a fraction of the time for each.

Shape legend: ``B`` texts, ``L`` tokens so far, ``n`` tokens that may follow, ``V`` vocabulary, ``S`` such steps.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from florence_mm.ops.precision import at_least_float32

from .allowed import AllowedRows, Following, few_tokens, keep_allowed_among
from .rules import Decoded, DecodingRules, NextLogits, check_some_follow, decoded, permitted_log_probs


@runtime_checkable
class SelectiveLogits(Protocol):
    """A ``NextLogits`` that can compute those of some tokens alone.

    Attributes:
        vocab_size: V.
        most: number of tokens up to which that is faster; 0: it never is.
    """

    vocab_size: int
    most: int

    def __call__(self, ids: Tensor, parents: Tensor | None) -> Tensor:
        """Return the logits of all tokens, see :data:`~florence_mm.models.generation.rules.NextLogits`."""

    def among(self, ids: Tensor, tokens: range | Tensor) -> Tensor:
        """Return logits of some tokens, ``(B, n)``, and keep what is needed for the others; rows are unchanged."""

    def log_probs(self, chosen: Tensor, which: Tensor) -> Tensor:
        """Return the log-probabilities, among all tokens, of those chosen at the steps of :meth:`among`.

        Args:
            chosen: ``(B, S)`` ids.
            which: ``(B, S)`` bool, those that are asked for.

        Returns:
            ``(N,)`` of the N that are asked for, on the CPU.
        """


class TextSteps:
    """The steps of a search that keeps one text a row, by choosing each next token from what may follow.

    Args:
        next_logits: logits of the next tokens; those of few tokens alone are asked of a :class:`SelectiveLogits`.
        batch_size: B.
        rules: special tokens, lengths, banned and allowed tokens.
        given: number of ids given at the start.
    """

    def __init__(self, next_logits: NextLogits, batch_size: int, rules: DecodingRules, given: int) -> None:
        self._next_logits, self._rules, self._given = next_logits, rules, given
        selective = isinstance(next_logits, SelectiveLogits) and next_logits.most
        self._selective: SelectiveLogits | None = next_logits if selective else None
        self._allowed = AllowedRows(rules.allowed, batch_size, rules.max_length)
        self._left: list[int] = []  # lengths at which probabilities are left for later

    def __call__(self, ids: Tensor, done: Tensor) -> tuple[Tensor, range | Tensor]:
        """Return scores of next tokens, of which the highest is the most probable, and the ids of these tokens.

        Args:
            ids: ``(B, L)``, those given at the start included.
            done: ``(B,)`` bool, texts that have ended, of which any token may be returned.

        Returns:
            ``(B, n)``, log-probabilities up to a number of each row, -inf where the rules forbid a token; and the ids
            of the n tokens in their order.
        """
        length = ids.shape[1] - self._given
        following = self._allowed(ids[:, self._given :], None, ~done)
        tokens = self._few(following, done, length)
        if tokens is None:
            log_probs = permitted_log_probs(self._next_logits(ids, None), length, self._rules, following)
            return log_probs, range(log_probs.shape[1])
        self._left.append(length)
        logits = at_least_float32(self._selective.among(ids, tokens))
        if length < self._rules.max_length:
            keep_allowed_among(logits, tokens, following)
            _forbid(logits, tokens, self._rules, length)
        return logits, tokens

    def _few(self, following: Sequence[Following], done: Tensor, length: int) -> range | Tensor | None:
        """Tokens that may follow in texts that go on, if they are few enough for their logits to be computed alone."""
        if self._selective is None:
            return None
        if length == self._rules.max_length:
            return range(self._rules.end_id, self._rules.end_id + 1)
        live = [allowed for allowed, ended in zip(following, done.tolist(), strict=True) if not ended]
        return few_tokens(live, self._selective.vocab_size, self._selective.most)

    def finish(self, ids: Tensor, log_probs: Tensor) -> Decoded:
        """Return the texts, with the probabilities that were left for the end.

        Args:
            ids: ``(B, L)`` of texts that have all ended, those given at the start included.
            log_probs: ``(B, L - P)`` float64 of the ids behind those P, as far as they are known.

        Raises:
            ValueError: the logits of a step are not finite.
        """
        written = ids[:, self._given :]
        ended = (written == self._rules.end_id).cumsum(1)
        real = (ended == 0) | (ended == 1) & (written == self._rules.end_id)
        if self._left:
            left = torch.tensor(self._left)
            which = real[:, left]
            values = log_probs.new_zeros(which.shape)
            values[which] = self._selective.log_probs(written[:, left], which).to(values)
            worst = values.amin(0)  # (S,)
            wrong = int((worst > -torch.inf).long().argmin())  # the first, if there is one
            check_some_follow(worst, self._left[wrong])
            log_probs[:, left] = values
        return decoded(written, log_probs, log_probs.masked_fill(~real, 0).sum(1), self._rules)


def _forbid(logits: Tensor, tokens: range | Tensor, rules: DecodingRules, length: int) -> None:
    """Set logits ``(B, n)`` of tokens that the rules ban, or of an end that is too early, to -inf, in place."""
    ids = torch.arange(tokens.start, tokens.stop) if isinstance(tokens, range) else tokens
    banned = rules.banned_ids
    if length < rules.min_length:
        banned = torch.cat([banned, banned.new_tensor([rules.end_id])])
    forbidden = torch.isin(ids, banned)
    if forbidden.any():
        logits.masked_fill_(forbidden.to(logits.device), -torch.inf)


def ids_at(tokens: range | Tensor, places: Tensor) -> Tensor:
    """Return the ids at some places ``(B,)`` of ``tokens``, on the CPU."""
    return places + tokens.start if isinstance(tokens, range) else tokens[places]
