"""Nucleus sampling (arXiv 1904.09751).

Shape legend: ``B`` texts, ``V`` vocabulary, ``P`` tokens given at the start.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from .few import TextSteps, ids_at
from .rules import Decoded, DecodingRules, NextLogits, check_some_follow

#: Source of the random numbers of B texts: one generator for all, one for each, or None, torch's global one.
RandomSource = Generator | Sequence[Generator] | None


@torch.no_grad()
def nucleus_search(
    next_logits: NextLogits,
    batch_size: int,
    rules: DecodingRules,
    top_p: float,
    temperature: float = 1.0,
    first_ids: Tensor | None = None,
    generator: RandomSource = None,
) -> Decoded:
    """Generate texts by nucleus sampling.

    Each token is drawn from the fewest most probable tokens whose probabilities sum to ``top_p`` or more, in proportion
    to these; before that, logits are divided by ``temperature``, and what the rules forbid has probability 0.

    Args:
        next_logits: see :data:`~florence_mm.models.generation.rules.NextLogits`; rows are the B texts.
        batch_size: B.
        rules: special tokens, lengths, banned and allowed tokens.
        top_p: probability of the nucleus, above 0; 1 draws from all tokens.
        temperature: below 1 probable tokens become more probable.
        first_ids: ``(B, P)`` ids given at the start; None: the start token.
        generator: one CPU generator for the batch; or one for each text, which then does not depend on the others of
            the batch; None: torch's.

    Returns:
        the texts; ``log_probs`` are those of the model, before temperature and nucleus.

    Raises:
        ValueError: ``top_p`` or ``temperature`` is out of range, or the number of generators is not B.
    """
    check_sampling(top_p, temperature)
    if not isinstance(generator, Generator | None) and len(generator) != batch_size:
        raise ValueError(
            f'there are {batch_size} texts and {len(generator)} generators; give one, or each text its own'
        )
    ids = rules.first_ids(first_ids, batch_size)  # (B, P)
    before, done = ids.shape[1], torch.zeros(batch_size, dtype=torch.bool)
    steps = TextSteps(next_logits, batch_size, rules, before)
    of_tokens = torch.zeros(batch_size, 0, dtype=torch.float64)  # (B, L - P)
    while not done.all():
        log_probs, tokens = steps(ids, done)  # (B, n)
        log_probs = log_probs.double()
        place = _draw(log_probs / temperature, top_p, _uniform(done, generator), ids.shape[1] - before)  # (B,)
        of_tokens = torch.cat([of_tokens, log_probs.gather(1, place[:, None]).cpu()], 1)
        token = ids_at(tokens, place.cpu()).masked_fill(done, rules.end_id)
        ids = torch.cat([ids, token[:, None]], 1)
        done |= token == rules.end_id
    return steps.finish(ids, of_tokens)


def check_sampling(top_p: float, temperature: float) -> None:
    """Check the arguments of nucleus sampling.

    Raises:
        ValueError: one is out of range.
    """
    if not 0 < top_p <= 1 or not 0 < temperature < math.inf:  # NaN is neither
        raise ValueError(
            f'top_p is {top_p} and temperature {temperature}; give a probability above 0 and at most 1, and a finite '
            'temperature above 0'
        )


def _draw(logits: Tensor, top_p: float, uniform: Tensor, written: int) -> Tensor:
    """Draw a token ``(B,)`` from the nucleus of each row of ``logits (B, V)`` by numbers ``(B,)`` from 0 to below 1."""
    check_some_follow(logits.amax(1), written)
    probs, order = logits.softmax(1).sort(dim=1, descending=True, stable=True)
    sums = probs.cumsum(1)
    # each token before which the sum is too small; those of probability 0 have rounding alone to thank for it
    last = ((sums - probs < top_p) & (probs > 0)).sum(1, keepdim=True) - 1  # (B, 1)
    reached = uniform.to(logits.device)[:, None] * sums.gather(1, last)
    place = (sums <= reached).sum(1, keepdim=True).minimum(last)
    return order.gather(1, place)[:, 0]


def _uniform(done: Tensor, generator: RandomSource) -> Tensor:
    """Draw a number per text, ``(B,)`` float64; generators of their own are not asked for texts that are ``done``."""
    if isinstance(generator, Generator | None):
        return torch.rand(len(done), dtype=torch.float64, generator=generator)
    drawn = torch.zeros(len(done), dtype=torch.float64)
    for row in (~done).nonzero().squeeze(1).tolist():
        drawn[row] = torch.rand((), dtype=torch.float64, generator=generator[row])
    return drawn
