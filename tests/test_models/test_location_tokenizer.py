import random

import pytest
import torch
from small_text import VOCAB

from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import TASKS, TaskFormat, find_task
from florence_mm.models.tokenizers import LocationTokenizer, RobertaTextTokenizer, TokenBatch

CLIP = {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB}
BASES = {'clip': CLIP, 'bert': {'type': 'BertTextTokenizer'}, 'roberta': {'type': 'RobertaTextTokenizer'}}
every_base = pytest.mark.parametrize('base', BASES)
WORDS = ['dog', 'a', 'red', 'unquestionably', 'left']


def ids_of(tokenizer, text, max_length=400):
    (row,) = tokenizer([text], max_length).input_ids.tolist()
    assert (row[0], row[-1]) == (tokenizer.start_token_id, tokenizer.end_token_id)
    return row[1:-1]


class Bart:
    """The sizes of BART's vocabulary, and no words."""

    vocab_size, start_token_id, pad_token_id, end_token_id, mask_token_id = 50265, 0, 1, 2, 50264
    special_ids = frozenset((0, 1, 2, 3, 50264))
    num_truncated = 0

    def __call__(self, texts, max_length):
        return TokenBatch(torch.tensor([[0, 100, 2]] * len(texts)), torch.ones(len(texts), 3, dtype=torch.bool))

    def word_starts(self, input_ids):
        return torch.ones_like(input_ids, dtype=torch.bool)

    def decode(self, input_ids):
        return 'x' * len(input_ids)


def test_ids_behind_the_vocabulary_of_bart_are_the_published_ones():
    tokenizer = LocationTokenizer(Bart())
    assert tokenizer.vocab_size == 51289
    expected = {
        '<od>': 50265,
        '</od>': 50266,
        '<ocr>': 50267,
        '</ocr>': 50268,
        '<loc_0>': 50269,
        '<loc_999>': 51268,
        '<cap>': 51269,
        '<sep>': 51279,
        '<region_to_desciption>': 51282,
        '<poly>': 51286,
        '</poly>': 51287,
        '<and>': 51288,
    }
    assert {mark: tokenizer.mark_id(mark) for mark in expected} == expected
    assert ids_of(tokenizer, 'x<loc_7><loc_999><sep>') == [100, 50276, 51268, 51279]
    assert tokenizer.decode([0, 100, 50276, 51268, 51279, 2]) == 'xx<loc_7><loc_999><sep>x'
    assert tokenizer.location_ids == range(50269, 51269)
    assert tokenizer.bin_of(50276) == 7 and tokenizer.bin_of(51269) is None and tokenizer.bin_of(100) is None


def test_ids_are_those_of_transformers_with_the_marks_added_in_the_published_order():
    from transformers import AddedToken

    tokenizer = LocationTokenizer({'type': 'RobertaTextTokenizer'}, num_bins=20)
    other = RobertaTextTokenizer()._tokenizer
    words = ['<od>', '</od>', '<ocr>', '</ocr>', *(f'<loc_{i}>' for i in range(20))]
    words += ['<cap>', '</cap>', '<ncap>', '</ncap>', '<dcap>', '</dcap>', '<grounding>', '</grounding>', '<seg>']
    words += ['</seg>', '<sep>', '<region_cap>', '</region_cap>', '<region_to_desciption>', '</region_to_desciption>']
    words += ['<proposal>', '</proposal>', '<poly>', '</poly>', '<and>']
    other.add_tokens([AddedToken(word, normalized=False, special=True) for word in words])
    assert len(other) == tokenizer.vocab_size
    rng = random.Random(0)
    for _ in range(40):
        text = ''.join(rng.choice([*words, 'dog', ' dog', 'a b ', '象', '<loc_20>', '<loc']) for _ in range(12)).strip()
        assert ids_of(tokenizer, text) == other(text, add_special_tokens=False)['input_ids'], text


@every_base
def test_answers_come_back_from_ids(base):
    tokenizer, rng = LocationTokenizer(BASES[base], num_bins=16), random.Random(base)
    task_format, regions = TaskFormat(16), 0
    for task in TASKS:
        for _ in range(8):
            target = answer(rng, task)
            text = task_format.write(task, target)
            ids = ids_of(tokenizer, text)
            assert tokenizer.decode([tokenizer.start_token_id, *ids, tokenizer.end_token_id]) == text
            parsed = task_format.parse(task, [piece for piece, _ in tokenizer.pieces(ids)])
            assert parsed.target == task_format.quantised(task, target) and not parsed.faults and parsed.text == text
            places = [place for _, tokens in tokenizer.pieces(ids) for place in tokens]
            assert places == list(range(len(ids)))
            regions += len(parsed.target.regions)
    assert regions > 40


def answer(rng, task):
    """A target of words that all tokenizers give back."""
    answers, text = find_task(task).answers, ' '.join(rng.choices(WORDS, k=rng.randint(1, 3)))
    if answers == 'text':
        return Target(text)
    points = [tuple((rng.random(), rng.random()) for _ in range(4)) for _ in range(2)]
    boxes = ((0.1, 0.2, 0.5 + rng.random() / 2, 0.9), (0.0, 0.0, rng.uniform(0.1, 1), 1.0))
    shapes = {'quad': points[0]} if answers == 'labelled_quads' else {'boxes': boxes}
    shapes = {'polygons': tuple(points)} if answers == 'polygons' or answers == 'labelled_shapes' else shapes
    return Target(regions=tuple(Region(text, **shapes) for _ in range(rng.randint(0, 3))))


def test_a_text_that_is_too_long_is_cut_before_a_region_that_is_not_whole():
    tokenizer = LocationTokenizer(CLIP, num_bins=8)
    box = '<loc_0><loc_1><loc_2><loc_3>'
    outline = f'<poly>{box}{box}<sep>{box}{box}</poly>'

    def kept(text, room):
        return tokenizer.decode(ids_of(tokenizer, text, room + 2))

    assert [kept(f'a{box}a{box}', room) for room in (10, 9, 5)] == [f'a{box}a{box}', f'a{box}', f'a{box}']
    assert kept(f'a{box}a a a', 8) == f'a{box}a a a' and kept(f'a{box}a a a', 7) == f'a{box}'
    # one text with more boxes than there is room for
    assert [kept(f'a{box}{box}{box}', room) for room in (12, 9, 8)] == [f'a{box}{box}', f'a{box}{box}', f'a{box}']
    assert kept(f'{box}{box}', 7) == box
    assert kept(f'a{outline}{outline}', 22) == f'a{outline}' and kept(f'a{outline}a{outline}', 20) == f'a{outline}'
    assert kept('a a a a', 3) == 'a a a'
    assert tokenizer.num_truncated == 10
    # the box that is not whole is not learned
    parsed = TaskFormat(8).parse('detection', kept(f'a{box}a{box}', 8))
    assert not parsed.faults and len(parsed.target.regions) == 1


def test_words_start_behind_marks():
    tokenizer = LocationTokenizer(CLIP, num_bins=8)
    ids = tokenizer(['unquestionably<loc_0>red dog<sep>'], 60).input_ids
    starts = tokenizer.word_starts(ids)[0].tolist()
    words = tokenizer.base(['unquestionably', 'red', 'dog'], 60).mask.sum(1).sub(2).tolist()
    expected = [True]
    for word, mark in zip(words, (1, 0, 1), strict=True):
        expected += [True] + [False] * (word - 1) + [True] * mark
    assert starts == [*expected, True]


def test_a_location_beyond_the_last_one_is_a_text():
    tokenizer = LocationTokenizer(CLIP, num_bins=8)
    assert all(token in tokenizer.text_ids for token in ids_of(tokenizer, '<loc_8>'))
    assert ids_of(tokenizer, '<loc_7>') == [tokenizer.location_ids[7]]


def test_errors():
    with pytest.raises(ValueError, match='num_bins is 1; give at least 2 locations'):
        LocationTokenizer(CLIP, num_bins=1)
    with pytest.raises(TypeError, match='CLIPTokenizer is no tokenizer of fusion models, which LocationTokenizer'):
        LocationTokenizer({'type': 'CLIPTokenizer', 'vocab_size': VOCAB})
    tokenizer = LocationTokenizer(CLIP, num_bins=8)
    with pytest.raises(ValueError, match='<loc_8> is not in the vocabulary of 8 locations'):
        tokenizer.mark_id('<loc_8>')
    with pytest.raises(ValueError, match='the id 633 is outside the vocabulary of 633 ids; decode ids of it'):
        tokenizer.decode([tokenizer.vocab_size])
