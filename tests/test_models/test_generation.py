import itertools
import math

import pytest
import torch

from florence_mm.models.generation import DecodingRules, beam_search, greedy_search

END, A, B, START = range(4)
# probabilities of the next token: (end, a, b, start)
TREE = {
    (): (0.0, 0.6, 0.4, 0.0),
    (A,): (0.34, 0.33, 0.33, 0.0),
    (B,): (0.9, 0.05, 0.05, 0.0),
}
OTHERWISE = (0.5, 0.25, 0.25, 0.0)


def tree(ids, parents=None):
    rows = [TREE.get(tuple(row[1:]), OTHERWISE) for row in ids.tolist()]
    return torch.tensor(rows, dtype=torch.float64).clamp_min(1e-30).log()


def rules(max_length=3, min_length=0, banned=(START,)):
    return DecodingRules(START, END, max_length, min_length, frozenset(banned))


def random_model(vocab=5, seed=0, rows_are=None):
    """Logits by what was written, the same whichever rows are asked together."""

    def next_logits(ids, parents=None):
        logits = []
        for number, row in enumerate(ids.tolist()):
            text = 0 if rows_are is None else rows_are[number]
            generator = torch.Generator().manual_seed(hash((seed, text, *row)) % 2**31)
            logits.append(2 * torch.randn(vocab, generator=generator))
        return torch.stack(logits)

    return next_logits


def test_two_beams_find_what_greedy_misses():
    greedy = greedy_search(tree, 1, rules())
    assert greedy.ids == [[A]] and greedy.log_probs.item() == pytest.approx(math.log(0.6 * 0.34))
    for penalty in (0.0, 1.0):
        beam = beam_search(tree, 1, rules(), 2, penalty)
        assert beam.ids == [[B]]
        assert beam.log_probs.item() == pytest.approx(math.log(0.4 * 0.9))


def test_a_length_penalty_prefers_longer_texts_by_hand():
    # "" has 0.4, "a" 0.36, "ab" 0.6 * 0.4 * 1 = 0.24; means of logs: -0.92, -0.51, -0.48
    table = {(): (0.4, 0.6, 0.0), (A,): (0.6, 0.0, 0.4), (A, B): (1.0, 0.0, 0.0)}

    def next_logits(ids, parents=None):
        rows = [table.get(tuple(row[1:]), (1.0, 0.0, 0.0)) for row in ids.tolist()]
        return torch.tensor([[*row, 0.0] for row in rows]).clamp_min(1e-30).log()

    found = [beam_search(next_logits, 1, rules(4), 3, penalty).ids[0] for penalty in (0.0, 0.5, 1.0, 2.0)]
    best = []
    for penalty in (0.0, 0.5, 1.0, 2.0):
        scores = {(): math.log(0.4), (A,): math.log(0.36) / 2**penalty, (A, B): math.log(0.24) / 3**penalty}
        best.append(list(max(scores, key=scores.get)))
    assert found == best == [[], [A], [A, B], [A, B]]


@pytest.mark.parametrize('penalty', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('seed', range(4))
def test_enough_beams_find_the_best_of_all_texts(penalty, seed):
    vocab, length = 4, 3
    model, limits = random_model(vocab, seed), rules(length, 1)
    scores = {}
    for size in range(1, length + 1):
        for text in itertools.product((A, B), repeat=size):
            ids, total = [START], 0.0
            for token in (*text, END):
                total += model(torch.tensor([ids])).double().log_softmax(1)[0, token].item()
                ids.append(token)
            scores[text] = total / (size + 1) ** penalty
    best = max(scores, key=scores.get)
    # as many beams as there are texts: each must be another one
    found = beam_search(model, 1, limits, 14, penalty)
    assert found.ids == [list(best)]
    assert found.log_probs.item() / (len(best) + 1) ** penalty == pytest.approx(scores[best], abs=1e-5)


def test_one_beam_is_greedy():
    for seed in range(20):
        model, limits = random_model(6, seed), rules(7, seed % 3)
        greedy, beam = greedy_search(model, 1, limits), beam_search(model, 1, limits, 1)
        assert greedy.ids == beam.ids
        assert torch.equal(greedy.log_probs, beam.log_probs)


@pytest.mark.parametrize('beams', [1, 3])
def test_other_texts_of_the_batch_change_nothing(beams):
    limits = rules(8)
    alone = [beam_search(random_model(6, rows_are=[text] * beams), 1, limits, beams, 0.6) for text in range(5)]
    rows = [text for text in range(5) for _ in range(beams)]
    together = beam_search(random_model(6, rows_are=rows), 5, limits, beams, 0.6)
    assert together.ids == [found.ids[0] for found in alone]
    assert len({len(ids) for ids in together.ids}) > 1
    torch.testing.assert_close(together.log_probs, torch.cat([found.log_probs for found in alone]))


@pytest.mark.parametrize('search', [greedy_search, lambda *args: beam_search(*args, num_beams=3)])
def test_lengths_and_forbidden_tokens(search):
    def favours(token):
        return lambda ids, parents: torch.full((len(ids), 5), -1.0).index_fill(1, torch.tensor([token]), 5.0)

    assert search(favours(END), 2, rules(4)).ids == [[], []]
    shortest = search(favours(END), 1, rules(4, 2)).ids[0]
    assert len(shortest) == 2
    assert search(favours(A), 1, rules(4)).ids == [[A] * 4]
    for token in (START, 4):
        (ids,) = search(favours(token), 1, rules(4, 4, (START, 4))).ids
        assert len(ids) == 4 and set(ids) <= {A, B}
    # the end that is forced has the probability the model gives it
    log_probs = torch.tensor([5.0, -1, -1, -1, -1], dtype=torch.float64).log_softmax(0)
    forced = search(favours(A), 1, rules(2))
    # four roundings of numbers between 4 and 8, in float32
    assert forced.log_probs.item() == pytest.approx((2 * log_probs[0] + log_probs[1]).item(), abs=4 * 2**-22)


def test_what_cannot_be_written_is_said():
    with pytest.raises(ValueError, match='logits are not finite'):
        beam_search(lambda ids, parents: torch.full((len(ids), 5), torch.nan), 1, rules(), 2)
    with pytest.raises(ValueError, match='all tokens are forbidden'):
        greedy_search(tree, 1, rules(3, 1, (A, B, START)))
    with pytest.raises(ValueError, match='at least 3 and at most 2'):
        rules(2, 3)
    with pytest.raises(ValueError, match='end token 0 is forbidden'):
        rules(banned=(END,))
    with pytest.raises(ValueError, match='num_beams is 0'):
        beam_search(tree, 1, rules(), 0)
    for penalty in (float('nan'), float('inf'), -1):  # no text would ever be decided
        with pytest.raises(ValueError, match='a finite number of at least 0'):
            beam_search(tree, 1, rules(), 2, penalty)
