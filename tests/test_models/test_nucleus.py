import math

import pytest
import torch

from florence_mm.models.generation import DecodingRules, nucleus_search

END, START = 0, 5
PROBS = [0.05, 0.3, 0.5, 0.15, 0.0]  # the two best have 0.8 together
DRAWS = 20000


def rules(max_length=1, min_length=0, banned=(START,)):
    return DecodingRules(START, END, max_length, min_length, frozenset(banned))


def always(probs):
    logits = torch.tensor([*probs, 0.0]).log()
    return lambda ids, parents: logits.expand(len(ids), -1)


def shares(first_rules=None, probs=PROBS, **kwargs):
    """How often each token comes first, the end last of all."""
    generator = torch.Generator().manual_seed(0)
    found = nucleus_search(always(probs), DRAWS, first_rules or rules(), generator=generator, **kwargs)
    firsts = torch.tensor([ids[0] if ids else END for ids in found.ids])
    return torch.bincount(firsts, minlength=5) / DRAWS


def close(found, expected):
    """Within 4.5 standard deviations of a share."""
    expected = torch.tensor(expected)
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((found - expected).abs() <= 4.5 * deviation).all(), (found, expected)


def test_the_nucleus_is_the_fewest_best_tokens_that_reach_top_p():
    close(shares(top_p=0.5), [0, 0, 1, 0, 0])
    close(shares(top_p=0.51), [0, 0.375, 0.625, 0, 0])
    close(shares(top_p=0.79), [0, 0.375, 0.625, 0, 0])
    close(shares(top_p=0.9), [0, 0.3 / 0.95, 0.5 / 0.95, 0.15 / 0.95, 0])
    close(shares(top_p=1.0), PROBS)
    assert shares(top_p=1e-9)[2] == 1


def test_a_temperature_is_a_power_of_the_probabilities_before_the_nucleus():
    squares = [p**2 / sum(q**2 for q in PROBS) for p in PROBS]
    close(shares(top_p=1.0, temperature=0.5), squares)
    # squares of the two best reach 0.9
    close(shares(top_p=0.9, temperature=0.5), [0, 9 / 34, 25 / 34, 0, 0])


def test_rules_hold_before_the_nucleus():
    close(shares(rules(banned=(START, 2)), top_p=0.6), [0, 1, 0, 0, 0])  # 0.3 of the 0.5 that remain
    close(shares(rules(min_length=1), top_p=1.0), [0, 0.3 / 0.95, 0.5 / 0.95, 0.15 / 0.95, 0])


def test_log_probs_are_those_of_the_model():
    found = nucleus_search(always(PROBS), 50, rules(3), 0.9, 0.7, generator=torch.Generator().manual_seed(1))
    assert len({len(ids) for ids in found.ids}) == 1  # the end is outside the nucleus, so it is forced
    for ids, log_prob in zip(found.ids, found.log_probs.tolist(), strict=True):
        assert log_prob == pytest.approx(sum(math.log(PROBS[token]) for token in (*ids, END)), rel=1e-6)
    assert len({tuple(ids) for ids in found.ids}) > 10


def test_a_text_with_its_own_generator_does_not_depend_on_the_others():
    def by_row(ids, parents):
        generators = [torch.Generator().manual_seed(hash(tuple(row)) % 2**31) for row in ids.tolist()]
        return torch.stack([torch.randn(6, generator=generator) for generator in generators])

    first = torch.tensor([[START, 1], [START, 2], [START, 3]])
    seeds = [3, 4, 5]
    own = [torch.Generator().manual_seed(seed) for seed in seeds]
    together = nucleus_search(by_row, 3, rules(8), 0.9, first_ids=first, generator=own)
    assert len({len(ids) for ids in together.ids}) > 1
    for row, seed in enumerate(seeds):
        one = torch.Generator().manual_seed(seed)
        alone = nucleus_search(by_row, 1, rules(8), 0.9, first_ids=first[row : row + 1], generator=[one])
        assert alone.ids[0] == together.ids[row]
        assert alone.log_probs.item() == pytest.approx(together.log_probs[row].item(), rel=1e-6)
        # a generator has given one number a token, whatever the other texts needed
        assert torch.equal(one.get_state(), own[row].get_state())


def test_a_generator_or_the_global_one_repeats_itself():
    def drawn(generator=None):
        return nucleus_search(always([0.1, 0.3, 0.3, 0.3, 0.0]), 20, rules(9), 0.95, generator=generator).ids

    torch.manual_seed(7)
    first = drawn()
    assert drawn() != first
    torch.manual_seed(7)
    assert drawn() == first == drawn(torch.Generator().manual_seed(7))


def test_errors():
    for values in ({'top_p': 0.0}, {'top_p': 1.1}, {'top_p': math.nan}, {'top_p': 0.9, 'temperature': 0.0}):
        with pytest.raises(ValueError, match='give a probability above 0 and at most 1, and a finite temperature'):
            nucleus_search(always(PROBS), 1, rules(), **values)
    for temperature in (math.inf, math.nan, -1):
        with pytest.raises(ValueError, match=f'temperature {temperature};'):
            nucleus_search(always(PROBS), 1, rules(), 0.9, temperature)
    with pytest.raises(ValueError, match='2 texts and 1 generators; give one, or each text its own'):
        nucleus_search(always(PROBS), 2, rules(), 0.9, generator=[torch.Generator()])
    with pytest.raises(ValueError, match='logits are not finite'):
        nucleus_search(lambda ids, parents: torch.full((len(ids), 6), math.nan), 1, rules(), 0.9)
    assert nucleus_search(always(PROBS), 0, rules(), 0.9, generator=[]).ids == []
