"""Where few tokens may follow, their logits alone are computed; what is written and its probabilities stay the same."""

import functools
import random

import pytest
import torch
from torch import nn

from florence_mm.models.generation import DecodingRules, TokenTrie, greedy_search, nucleus_search
from florence_mm.models.generation.allowed import few_tokens, keep_allowed_among
from florence_mm.models.heads.multimodal.tasks import TaskHead
from florence_mm.models.heads.multimodal.vocabulary import VocabularyHead
from florence_mm.models.multimodal import Florence2
from florence_mm.models.multimodal.protocol import TaskQuestion

START, END, WORDS = 0, 1, 40
searches = pytest.mark.parametrize(
    'search', [greedy_search, functools.partial(nucleus_search, top_p=0.9, temperature=0.7)], ids=['greedy', 'nucleus']
)


class Selective:
    """Logits by what was written, of all tokens or of some; counts the steps of either kind."""

    vocab_size = WORDS

    def __init__(self, seed, most):
        self.seed, self.most = seed, most
        self.left, self.counts = [], {'all': 0, 'some': 0}

    def _logits(self, ids):
        generators = [torch.Generator().manual_seed(hash((self.seed, *row)) % 2**31) for row in ids.tolist()]
        return torch.stack([3 * torch.randn(WORDS, generator=generator) for generator in generators])

    def __call__(self, ids, parents):
        self.counts['all'] += 1
        return self._logits(ids)

    def among(self, ids, tokens):
        self.counts['some'] += 1
        self.left.append(ids)
        return self._logits(ids)[:, list(tokens)]

    def log_probs(self, chosen, which):
        steps = [self._logits(ids).log_softmax(1) for ids in self.left]
        return torch.stack([steps[step][row, chosen[row, step]] for row, step in which.nonzero().tolist()])


def random_allowed(seed):
    """What may follow, in every form, by what was written; some words are banned, and the end is always among them."""

    def allowed(written):
        draw = random.Random(hash((seed, *written)))
        some = sorted({END, *draw.sample(range(WORDS), draw.randint(3, 9))})
        begin = draw.randrange(WORDS - 12)
        mask = torch.zeros(draw.choice((WORDS, WORDS - 5)), dtype=torch.bool)
        mask[[token for token in some if token < len(mask)]] = True
        kinds = [range(begin, begin + 12), some, set(some), dict.fromkeys(some).keys(), mask, range(WORDS), None]
        return draw.choice(kinds)

    return allowed


@searches
def test_ids_and_probabilities_are_those_of_all_logits(search):
    counts, lengths = {'all': 0, 'some': 0}, set()
    for seed in range(25):
        allowed = [random_allowed((seed, row)) for row in range(3)] + [TokenTrie([[5, 6], [5], [7, 8, 9]], END)]
        allowed = [*allowed, None] if seed % 5 == 0 else random_allowed(seed) if seed % 5 == 1 else allowed
        texts = len(allowed) if isinstance(allowed, list) else 4
        limits = DecodingRules(START, END, 7, seed % 3 if not isinstance(allowed, list) else 0, {START, 3, 39}, allowed)
        found = []
        for most in (30, 0):
            model = Selective(seed, most)
            generator = {'generator': torch.Generator().manual_seed(seed)} if search is not greedy_search else {}
            found.append(search(model, texts, limits, **generator))
            if most:
                counts = {kind: counts[kind] + number for kind, number in model.counts.items()}
            else:
                assert not model.counts['some']
        few, whole = found
        assert few.ids == whole.ids
        torch.testing.assert_close(few.log_probs, whole.log_probs, atol=1e-5, rtol=0)
        for ours, theirs in zip(few.token_log_probs, whole.token_log_probs, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
            assert len(ours) >= 1
        lengths |= set(map(len, few.ids))
    assert counts['all'] > 20 and counts['some'] > 20 and len(lengths) > 4


def test_few_tokens():
    mask = torch.zeros(10, dtype=torch.bool)
    mask[[2, 9]] = True
    assert few_tokens([range(3, 5), range(4, 8)], 10, 5) == range(3, 8)
    assert few_tokens([range(3, 5), range(4, 9)], 10, 5) is None  # six
    assert few_tokens([range(3, 5), None], 10, 5) is None
    assert few_tokens([mask, {4: 1}.keys(), range(8, 10)], 10, 5).tolist() == [2, 4, 8, 9]
    assert few_tokens([mask, [4, 5, 6, 7]], 10, 5) is None
    assert few_tokens([[], ()], 10, 5) is few_tokens([], 10, 5) is None
    assert few_tokens([range(9, 1, -4)], 10, 5).tolist() == [5, 9]
    for wrong in (range(8, 11), [3, 10], [-1], torch.ones(11, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r'the logits are of 10 tokens; allow ids of the same vocabulary'):
            few_tokens([wrong], 10, 11)


def test_of_some_logits_those_that_may_not_follow_are_dropped():
    mask = torch.tensor([False, True, False, True])
    logits = torch.zeros(5, 3)
    keep_allowed_among(logits, torch.tensor([1, 2, 9]), [mask, range(2, 10), None, [9, 4], ()])
    assert (logits == 0).tolist() == [
        [True, False, False],
        [False, True, True],
        [True, True, True],
        [False, False, True],
        [False, False, False],
    ]


@searches
def test_texts_that_have_ended_ask_for_nothing(search):
    model = Selective(0, 30)
    limits = DecodingRules(START, END, 6, 0, (), [lambda written: [END], lambda written: range(5, 12)])
    assert list(map(len, search(model, 2, limits).ids)) == [0, 6]
    assert model.counts == {'all': 0, 'some': 7}


@searches
def test_what_cannot_go_on_is_said(search):
    banned = DecodingRules(START, END, 4, 0, {START, 3}, lambda written: [3] if written else [4])
    with pytest.raises(ValueError, match='no token can follow the 1 written so far'):
        search(Selective(0, 30), 2, banned)

    class Broken(Selective):
        def log_probs(self, chosen, which):
            return super().log_probs(chosen, which).where(torch.arange(int(which.sum())) != 1, torch.nan)

    with pytest.raises(ValueError, match='no token can follow the 2 written so far: their logits are not finite'):
        search(Broken(0, 30), 1, DecodingRules(START, END, 4, 3, (), lambda w: range(5, 9) if len(w) != 1 else None))


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    small = Florence2(
        image_encoder={
            'type': 'CoSwin',
            'arch': {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2]},
            'window_size': 4,
        },
        tokenizer={
            'type': 'LocationTokenizer',
            'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': 9000},
            'num_bins': 500,
        },
        text={'hidden_size': 64, 'num_layers': 1, 'num_heads': 2, 'max_positions': 90},
        max_text_len=40,
        max_prompt_len=30,
        heads={'tasks': {'type': 'TaskHead', 'max_length': 14}},
    ).eval()
    for parameter in small.parameters():
        nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(small.heads['tasks'].bias)
    return small


@pytest.fixture
def seen(monkeypatch):
    """Shapes of all logits that are computed."""
    shapes, logits = [], VocabularyHead.logits

    def recorded(self, *args):
        found = logits(self, *args)
        shapes.append(tuple(found.shape))
        return found

    monkeypatch.setattr(VocabularyHead, 'logits', recorded)
    return shapes


def solve(model, tasks, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        tokens = model.encode_image(torch.randn(2, 3, 64, 64))
        given = {'phrase_grounding': 'a dog and a cat', 'referring_segmentation': 'a dog'}
        questions = [TaskQuestion(row % 2, task, given.get(task)) for row, task in enumerate(tasks)]
        return model.solve(tokens, questions)


@pytest.mark.parametrize('top_p', [None, 0.8])
@pytest.mark.parametrize(
    'tasks',
    [
        ['region_proposal', 'region_proposal'],
        ['region_proposal', 'referring_segmentation', 'referring_segmentation'],
        ['detection', 'region_proposal', 'caption', 'ocr_with_region', 'phrase_grounding'],
    ],
)
def test_answers_and_scores_are_those_of_all_logits(model, tasks, top_p, seen, monkeypatch):
    monkeypatch.setattr(model.heads['tasks'], 'top_p', top_p)
    for seed in range(3):
        few = solve(model, tasks, seed)
        partial = [shape for shape in seen if shape[1] < model.heads['tasks'].vocab_size]
        with monkeypatch.context() as patch:
            patch.setattr(TaskHead, 'is_selective', lambda self: False)
            seen.clear()
            whole = solve(model, tasks, seed)
            assert {shape[1] for shape in seen} == {model.heads['tasks'].vocab_size}
        assert partial or 'caption' in tasks
        for ours, theirs in zip(few, whole, strict=True):
            assert ours.text == theirs.text
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            scores = [[region.score for region in one.target.regions] for one in (ours, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        seen.clear()


def test_steps_of_locations_compute_no_logits_of_words(model, seen):
    (answer,) = solve(model, ['region_proposal'])
    boxes = answer.text.count('<loc_') // 4
    assert boxes >= 2
    whole = [shape for shape in seen if shape[1] == model.heads['tasks'].vocab_size]
    steps = [shape for shape in seen if shape not in whole]
    assert len(steps) >= 4 * boxes and all(shape[0] == 1 and shape[1] <= 501 for shape in steps)
    assert whole == [(len(steps), model.heads['tasks'].vocab_size)]  # once, for all of them


def test_hooks_see_all_logits(model):
    head, shapes = model.heads['tasks'], []
    hook = head.register_forward_hook(lambda module, args, out: shapes.append(out.shape[1]))
    try:
        solve(model, ['region_proposal'])
    finally:
        hook.remove()
    assert len(shapes) >= 8 and set(shapes) == {head.vocab_size}


def test_memory_of_texts_lies_in_the_order_of_heads(model):
    with torch.no_grad():
        memory = model.start_writing(model.encode_image(torch.randn(1, 3, 64, 64)), [0, 0]).memory
    assert all(x.is_contiguous() for pair in memory.contexts for x in pair)
