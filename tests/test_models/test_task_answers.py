"""The grammar of answers, and the scores of what was written."""

import math
import random

import pytest
import torch
from test_location_tokenizer import BASES, answer, every_base, ids_of

from florence_mm.language.phrases import caption_phrases, in_caption
from florence_mm.language.tasks import TASKS, TaskFormat, find_task
from florence_mm.models.generation import DecodingRules, StepwiseAllowed, beam_search, greedy_search, nucleus_search
from florence_mm.models.heads.multimodal.task_answers import read_answer
from florence_mm.models.heads.multimodal.task_grammar import TaskGrammar
from florence_mm.models.tokenizers import LocationTokenizer

BINS = 8
TOKENIZERS = {name: LocationTokenizer(base, num_bins=BINS) for name, base in BASES.items()}
CLIP = TOKENIZERS['clip']
FORMAT = TaskFormat(BINS)
every_task = pytest.mark.parametrize('task', TASKS)


def listed(following):
    """Ids that may follow as a set."""
    if isinstance(following, torch.Tensor):
        return set(following.nonzero().squeeze(1).tolist())
    return set(following)


# --- the grammar ------------------------------------------------------------------------------------------------------


@every_task
@every_base
def test_every_answer_may_be_written(task, base):
    tokenizer, rng = TOKENIZERS[base], random.Random(task)
    grammar = TaskGrammar(task, tokenizer)
    assert isinstance(grammar, StepwiseAllowed)
    for _ in range(10):
        ids = ids_of(tokenizer, FORMAT.write(task, answer(rng, task)))
        state = grammar.start
        for place, token in enumerate([*ids, tokenizer.end_token_id]):
            following = grammar.following(state)
            assert token in listed(following), tokenizer.decode(ids[:place])
            assert listed(grammar(ids[:place])) == listed(following)
            state = grammar.follow(state, token) if place < len(ids) else state


@every_task
@every_base
def test_everything_that_may_be_written_parses(task, base):
    tokenizer, rng = TOKENIZERS[base], random.Random(task)
    grammar, regions = TaskGrammar(TASKS[task].mark, tokenizer), 0
    for _ in range(40):
        ids, state = [], grammar.start
        while True:
            following = listed(grammar.following(state))
            assert following and not following & (tokenizer.special_ids - {tokenizer.end_token_id})
            kinds = {
                'end': following & {tokenizer.end_token_id},
                'locations': following & set(tokenizer.location_ids),
                'text': {token for token in following if token in tokenizer.text_ids} - {tokenizer.end_token_id},
            }
            kinds['marks'] = following.difference(*kinds.values())
            chosen = rng.choice(
                [kind for kind in sorted(kinds) if kinds[kind] and (kind != 'end' or rng.random() < 0.5)]
            )
            token = rng.choice(sorted(kinds[chosen]))
            if chosen == 'end':
                break
            ids.append(token)
            state = grammar.follow(state, token)
        parsed = FORMAT.parse(task, [piece for piece, _ in tokenizer.pieces(ids)])
        assert not parsed.faults, (tokenizer.decode(ids), parsed.faults)
        assert parsed.target.regions or parsed.target.text or not ids
        regions += len(parsed.target.regions)
    assert regions > 15 or find_task(task).answers == 'text'


def test_edges_of_boxes_are_in_order():
    grammar, first = TaskGrammar('region_proposal', CLIP), CLIP.location_ids.start
    ids = [first + 3, first + 5]
    assert [listed(grammar(ids[:n])) for n in (1, 2)] == [{*CLIP.location_ids}, {*range(first + 3, first + BINS)}]
    assert listed(grammar([*ids, first + 4])) == {*range(first + 5, first + BINS)}
    assert listed(grammar([*ids, first + 4, first + 5])) == {CLIP.end_token_id, *CLIP.location_ids}


def test_what_may_follow_in_an_outline():
    grammar, loc, end = TaskGrammar('referring_segmentation', CLIP), CLIP.location_ids.start, CLIP.end_token_id
    sep, begin, close = (CLIP.mark_id(mark) for mark in ('<sep>', '<poly>', '</poly>'))
    locations = {*CLIP.location_ids}
    for ids, expected in (
        ([], locations | {begin, end}),
        ([loc] * 5, locations),
        ([loc] * 6, locations | {sep, end}),
        ([loc] * 7, locations),
        ([loc] * 6 + [sep], locations),
        ([loc] * 6 + [sep] + [loc] * 4, locations),
        ([begin] + [loc] * 6, locations | {sep, close}),
        ([begin] + [loc] * 6 + [sep] + [loc] * 6, locations | {sep, close}),
        ([begin] + [loc] * 6 + [close], {begin, end}),
    ):
        assert listed(grammar(ids)) == expected


def test_texts_of_a_list():
    names = ['red dog', 'red', 'dog']
    grammar = TaskGrammar('detection', CLIP, names)
    red, dog, long = (ids_of(CLIP, text) for text in ('red', 'dog', 'red dog'))
    box = [CLIP.location_ids.start] * 4
    locations, end = {*CLIP.location_ids}, CLIP.end_token_id
    assert listed(grammar([])) == {red[0], dog[0], end}
    assert listed(grammar(red)) == {long[len(red)]} | locations
    assert listed(grammar(long)) == locations
    assert listed(grammar(long + box)) == {red[0], dog[0], end} | locations
    rng = random.Random(0)
    for task in ('detection', 'ocr_with_region', 'open_vocabulary_detection', 'region_category'):
        grammar, seen = TaskGrammar(task, CLIP, names), set()
        for _ in range(40):
            ids = []
            while (token := rng.choice(sorted(listed(grammar(ids))))) != end and len(ids) < 60:
                ids.append(token)
            if token == end:
                target = FORMAT.parse(task, [piece for piece, _ in CLIP.pieces(ids)]).target
                seen |= {target.text} if task == 'region_category' else {region.text for region in target.regions}
        assert seen == set(names)


def test_phrases_of_a_caption_alone():
    caption, rng = 'A red dog, a cat (asleep) and 2 dogs.', random.Random(0)
    phrases = caption_phrases(caption, longest=3)
    assert (
        all(in_caption(phrase, caption) for phrase in phrases) and 'red dog, a' in phrases and 'and 2 dogs' in phrases
    )
    grammar, seen = TaskGrammar('phrase_grounding', CLIP, phrases), set()
    for _ in range(60):
        ids = []
        while (token := rng.choice(sorted(listed(grammar(ids))))) != CLIP.end_token_id and len(ids) < 60:
            ids.append(token)
        if token == CLIP.end_token_id:
            parsed = FORMAT.parse('phrase_grounding', [piece for piece, _ in CLIP.pieces(ids)], given=caption)
            assert not parsed.faults
            seen |= {region.text for region in parsed.target.regions}
    assert len(seen) > 10


def test_grammars_that_cannot_be():
    for task, texts, message in (
        ('detektion', None, "there is no task 'detektion'; did you mean 'detection'"),
        ('region_proposal', ['dog'], 'region_proposal writes no texts and got 1 to choose from; leave them out'),
        ('detection', [], 'detection got no texts to choose from; give at least one, or None for any'),
        ('detection', ['dog', ''], "the text '' is empty or has a mark in it; give words"),
        ('detection', ['dog<sep>'], "the text 'dog<sep>' is empty or has a mark in it; give words"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskGrammar(task, CLIP, texts)


@pytest.mark.parametrize('search', ['greedy', 'beam', 'nucleus'])
def test_searches_write_answers_to_a_task_of_its_own_for_each_text(search):
    """Random weights write nothing that parses; with the grammar they write nothing that does not."""
    tasks = [task for task in TASKS if find_task(task).answers != 'text']

    def logits_of(seed):
        def next_logits(ids, parents=None):
            generators = [torch.Generator().manual_seed(hash((seed, *row)) % 2**31) for row in ids.tolist()]
            logits = torch.stack([torch.randn(CLIP.vocab_size, generator=generator) for generator in generators])
            logits[:, list(CLIP.location_ids)] += 2
            logits[:, CLIP.end_token_id] += 4
            return logits

        return next_logits

    def write(allowed, seed):
        banned = CLIP.special_ids - {CLIP.end_token_id}
        rules = DecodingRules(CLIP.start_token_id, CLIP.end_token_id, 60, 3, banned, allowed)
        next_logits = logits_of(seed)
        torch.manual_seed(seed)
        if search == 'beam':
            return beam_search(next_logits, len(tasks), rules, 3)
        if search == 'greedy':
            return greedy_search(next_logits, len(tasks), rules)
        return nucleus_search(next_logits, len(tasks), rules, 0.9)

    regions, faults = 0, {True: 0, False: 0}
    grammars = [TaskGrammar(task, CLIP) for task in tasks]
    for seed in range(6):
        for allowed in (grammars, None):
            for task, ids in zip(tasks, (found := write(allowed, seed)).ids, strict=True):
                parsed = FORMAT.parse(task, [piece for piece, _ in CLIP.pieces(ids)])
                faults[allowed is None] += len(parsed.faults) if len(ids) < 60 else 0
                regions += len(parsed.target.regions) if allowed else 0
            assert all(len(row) == len(ids) + 1 for row, ids in zip(found.token_log_probs, found.ids, strict=True))
    assert faults[False] == 0 and faults[True] > 30 and regions > 20


# --- scores -----------------------------------------------------------------------------------------------------------


def read(task, text, probabilities, **kwargs):
    ids = ids_of(CLIP, text)
    assert len(ids) == len(probabilities)
    return read_answer(task, ids, [*map(math.log, probabilities), 0.0], CLIP, FORMAT, **kwargs)


def test_scores_by_hand():
    red, dog = (len(ids_of(CLIP, word)) for word in ('red', 'dog'))
    box = '<loc_0><loc_1><loc_2><loc_3>'
    probabilities = [0.5] * red + [0.25] * 4 + [1] * 4 + [0.16] * dog + [0.81] * 4
    answered = read('detection', f'red{box}{box}dog{box}', probabilities)
    scores = [region.score for region in answered.target.regions]
    assert [region.text for region in answered.target.regions] == ['red', 'red', 'dog']
    assert all(len(region.boxes) == 1 for region in answered.target.regions)
    assert scores == pytest.approx([math.sqrt(0.5 * 0.25), math.sqrt(0.5), 0.4 * 0.9])
    proposals = read('region_proposal', box * 2, [0.5, 0.5, 0.125, 0.5] + [0.3] * 4)
    assert [region.score for region in proposals.target.regions] == pytest.approx([2**-1.5, 0.3])
    outline = read('referring_segmentation', f'{box}{box}<sep>{box}{box}', [0.5] * 8 + [0.001] + [0.125] * 8)
    assert [region.score for region in outline.target.regions] == pytest.approx([0.25])  # without the separator
    exit_ = read('ocr_with_region', f'dog{box}{box}', [0.25] * dog + [1] * 8)
    assert [region.score for region in exit_.target.regions] == pytest.approx([0.5])
    assert read('caption', 'red', [0.1] * red).target.text == 'red'


def test_faults_come_along_and_do_not_count():
    red, box = len(ids_of(CLIP, 'red')), '<loc_0><loc_1><loc_2><loc_3>'
    answered = read('phrase_grounding', f'red{box}<loc_1>', [0.25] * red + [1] * 4 + [0.01], given='the dog')
    assert [region.score for region in answered.target.regions] == pytest.approx([0.5])
    assert [fault.split(' ')[0] for fault in answered.faults] == ['<loc_1>', 'the'] and 'caption' in answered.faults[1]
    assert answered.text == f'red{box}<loc_1>'


def test_scores_that_cannot_be():
    with pytest.raises(ValueError, match='there are 3 ids and 1 log-probabilities; give one for each'):
        read_answer('caption', [5, 6, 7], [0.0], CLIP, FORMAT)
    with pytest.raises(ValueError, match='the tokenizer has 8 locations and the format 1000; give both the'):
        read_answer('caption', [5], [0.0], CLIP, TaskFormat())
