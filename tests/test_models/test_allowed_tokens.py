"""Tokens allowed as a function of those before them, in every search."""

import functools

import pytest
import torch

from florence_mm.models.generation import DecodingRules, TokenTrie, beam_search, greedy_search, nucleus_search

END, A, B, C, START = range(5)
TEXTS = [[A], [A, B], [A, B, C], [B, B, A], [C]]
sampled = functools.partial(nucleus_search, top_p=1.0)
every_search = pytest.mark.parametrize(
    'search', [greedy_search, functools.partial(beam_search, num_beams=3), sampled], ids=['greedy', 'beam', 'nucleus']
)


def logits_of(seed):
    """Logits by what was written, the same whichever rows are asked together."""

    def next_logits(ids, parents=None):
        generators = [torch.Generator().manual_seed(hash((seed, *row)) % 2**31) for row in ids.tolist()]
        return torch.stack([2 * torch.randn(5, generator=generator) for generator in generators])

    return next_logits


def rules(allowed, max_length=4, min_length=0):
    return DecodingRules(START, END, max_length, min_length, {START}, allowed)


def log_probs(next_logits, text):
    ids = [START, *text, END]
    return [
        next_logits(torch.tensor([ids[:place]])).double().log_softmax(1)[0, ids[place]].item()
        for place in range(1, len(ids))
    ]


def log_prob(next_logits, text):
    return sum(log_probs(next_logits, text))


def test_beams_choose_the_most_probable_text_of_a_list():
    outside = 0
    for seed in range(6):
        model = logits_of(seed)
        scores = [log_prob(model, text) for text in TEXTS]
        found = beam_search(model, 2, rules(TokenTrie(TEXTS, END)), num_beams=8, length_penalty=0.0)
        assert found.ids == [TEXTS[scores.index(max(scores))]] * 2
        assert found.log_probs.tolist() == pytest.approx([max(scores)] * 2, abs=1e-5)
        outside += beam_search(model, 1, rules(None), 8, 0.0).ids[0] not in TEXTS
    assert outside >= 1  # more probable is what the list lacks


@every_search
def test_every_search_writes_texts_of_the_list(search):
    written = set()
    for seed in range(12):
        torch.manual_seed(seed)
        model = logits_of(seed)
        found = search(model, 3, rules(TokenTrie(TEXTS, END)))
        assert all(ids in TEXTS for ids in found.ids)
        expected = [log_prob(model, ids) for ids in found.ids]  # not renormalised over those that are allowed
        assert found.log_probs.tolist() == pytest.approx(expected, abs=1e-5)
        for ids, of_tokens in zip(found.ids, found.token_log_probs, strict=True):
            assert of_tokens == pytest.approx(log_probs(model, ids), abs=1e-5)
        written.update(map(tuple, found.ids))
    assert len(written) >= 4


def test_the_ids_written_so_far_are_asked_about_without_those_given_and_only_while_a_text_goes_on():
    asked = []

    def allowed(written):
        asked.append(tuple(written))
        return None if written else [A, B]

    first = torch.tensor([[START, C], [START, C]])
    table = {0: [-9.0, 1, 0, 5, 5], 1: [3.0, 1, 0, 0, 0]}  # the first token, and those after it

    def next_logits(ids, parents=None):
        return torch.tensor([table[min(ids.shape[1] - 2, 1)]] * len(ids))

    assert greedy_search(next_logits, 2, rules(allowed), first).ids == [[A], [A]]
    assert asked == [(), (), (A,), (A,)]
    asked.clear()
    assert beam_search(next_logits, 1, rules(allowed), 2, 1.0, first[:1]).ids == [[A]]
    assert asked[:3] == [(), (A,), (B,)] and all(END not in ids for ids in asked)  # equal beams are one at first


@every_search
def test_what_is_allowed_without_effect_and_what_cannot_be(search):
    for allowed in (lambda written: None, lambda written: range(5)):
        torch.manual_seed(0)
        found = search(logits_of(1), 2, rules(allowed))
        torch.manual_seed(0)
        plain = search(logits_of(1), 2, rules(None))
        assert found.ids == plain.ids and torch.equal(found.log_probs, plain.log_probs)
    # the end that is forced needs no permission
    assert search(logits_of(0), 1, rules(lambda written: [B], 2)).ids == [[B, B]]
    with pytest.raises(ValueError, match='no token can follow the 1 written so far'):
        search(logits_of(0), 1, rules(lambda written: [] if written else [A]))
    with pytest.raises(ValueError, match='allowed ids range from 1 to 5 and the logits are of 5 tokens'):
        search(logits_of(0), 1, rules(lambda written: [A, 5]))


def test_tries():
    trie = TokenTrie([*TEXTS, [A]], END)
    assert [set(trie(beginning)) for beginning in ([], [A], [A, B], [B], [C, A])] == [
        {A, B, C},
        {END, B},
        {END, C},
        {B},
        set(),
    ]
    assert trie.longest == 3
    with pytest.raises(ValueError, match='no texts to choose from; give at least one'):
        TokenTrie([], END)
    with pytest.raises(ValueError, match=r'\[1, 0\] contain the end token 0; give texts without'):
        TokenTrie([[A, END]], END)


class Stepwise:
    """A trie that fails if it is asked about all tokens."""

    def __init__(self, texts):
        self._trie = TokenTrie(texts, END)
        self.start, self.follow, self.following = self._trie.start, self._trie.follow, self._trie.following

    def __call__(self, written):
        raise AssertionError('all tokens were read')


@every_search
def test_a_state_is_followed_through_all_beams_as_if_all_tokens_were_read(search):
    for seed in range(8):
        found = []
        for allowed in (Stepwise(TEXTS), lambda written: TokenTrie(TEXTS, END)(written)):
            torch.manual_seed(seed)
            found.append(search(logits_of(seed), 3, rules(allowed)))
        assert found[0].ids == found[1].ids and found[0].token_log_probs == found[1].token_log_probs


@every_search
def test_each_text_may_have_its_own_function(search):
    tries = [TokenTrie([[A]], END), None, lambda written: [C] if len(written) < 2 else [END]]
    torch.manual_seed(0)
    found = search(logits_of(2), 3, rules(tries))
    assert found.ids[0] == [A] and found.ids[2] == [C, C]
    torch.manual_seed(0)
    assert found.ids[1] == search(logits_of(2), 3, rules(None)).ids[1]
    with pytest.raises(ValueError, match='there are 2 texts and 3 functions of what is allowed; give one, or each'):
        search(logits_of(2), 2, rules(tries))


@every_search
def test_ranges_and_masks_are_collections(search):
    def mask(*ids):
        return torch.isin(torch.arange(4), torch.tensor(ids))  # shorter than the vocabulary: START may not follow

    for listed, other in (([A, B, C], range(A, C + 1)), ([A, C, END], mask(A, C, END)), ([END], mask(END))):
        for seed in range(4):
            torch.manual_seed(seed)
            expected = search(logits_of(seed), 2, rules(lambda written, listed=listed: listed))
            torch.manual_seed(seed)
            found = search(logits_of(seed), 2, rules(lambda written, other=other: other))
            assert found.ids == expected.ids and torch.equal(found.log_probs, expected.log_probs)
    for beyond in (range(3, 7), torch.ones(7, dtype=torch.bool)):
        with pytest.raises(ValueError, match='to 6 and the logits are of 5 tokens'):
            search(logits_of(0), 1, rules(lambda written, beyond=beyond: beyond))
