import pytest

from florence_mm.curation.annotation_filters import drop_overlaps, filter_items, is_blacklisted
from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_options import FilterOptions, MergeOptions, RefineOptions
from florence_mm.curation.annotation_parsing import Complexity, Parse, SpacyParser, Word, complexity_of, head_lemma
from florence_mm.errors import UsageError

BOX = (0.0, 0.0, 0.5, 0.5)
#: Text, lemma, tag and head of each word, worked out by hand.
PARSES = {
    'a red dog runs': [
        ('a', 'a', 'DET', 2),
        ('red', 'red', 'ADJ', 2),
        ('dog', 'dog', 'NOUN', 3),
        ('runs', 'run', 'VERB', 3),
    ],
    'dogs': [('dogs', 'dog', 'NOUN', 0)],
    'a dog and a cat': [
        *(('a', 'a', 'DET', 1), ('dog', 'dog', 'NOUN', 1), ('and', 'and', 'CCONJ', 1), ('a', 'a', 'DET', 4)),
        ('cat', 'cat', 'NOUN', 1),
    ],
    'in Paris': [('in', 'in', 'ADP', 0), ('Paris', 'Paris', 'PROPN', 0)],
    'the time of the day': [
        *(('the', 'the', 'DET', 1), ('time', 'time', 'NOUN', 1), ('of', 'of', 'ADP', 1), ('the', 'the', 'DET', 4)),
        ('day', 'day', 'NOUN', 2),
    ],
}


class Parses:
    name = 'by hand'

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return [Parse(tuple(Word(*word) for word in PARSES[text])) for text in texts]


def reasons_of(items, parser=None, **options):
    (found,) = filter_items([items], FilterOptions(**options), parser)
    assert [item.text for item in found] == [item.text for item in items]
    return [item.drop for item in found]


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        # red and a depend on dog, dog on runs: three arcs; runs has one
        ('a red dog runs', Complexity(1, 1, 1, 0, 3, 1)),
        ('dogs', Complexity(1, 0, 0, 0, 0, 0)),
        # a, and, cat at dog; a and dog at cat
        ('a dog and a cat', Complexity(2, 0, 0, 0, 3, 0)),
        ('in Paris', Complexity(0, 0, 0, 1, 1, 0)),
    ],
)
def test_complexity_is_the_most_arcs_at_a_word(text, says):
    assert complexity_of(Parses()([text])[0]) == says


def test_heads_of_phrases():
    parses = Parses()(['the time of the day', 'a red dog runs', 'dogs'])
    assert list(map(head_lemma, parses)) == ['time', None, 'dog']


@pytest.mark.parametrize(
    ('options', 'dropped'),
    [
        ({'max_objects': 1}, {'a dog and a cat': 'too_many_objects'}),
        ({'min_objects': 2}, dict.fromkeys(('a red dog runs', 'dogs', 'in Paris'), 'too_few_objects')),
        ({'min_object_degree': 2}, dict.fromkeys(('dogs', 'in Paris'), 'simple_objects')),
        ({'min_action_degree': 1}, dict.fromkeys(('dogs', 'a dog and a cat', 'in Paris'), 'simple_actions')),
        # the first reason counts
        (
            {'min_objects': 1, 'min_object_degree': 3, 'min_action_degree': 1},
            {
                'dogs': 'simple_objects',
                'in Paris': 'simple_objects',
                'a dog and a cat': 'simple_actions',
            },
        ),
    ],
)
def test_texts_are_filtered_by_their_parse(options, dropped):
    texts = ['a red dog runs', 'dogs', 'a dog and a cat', 'in Paris']
    parser = Parses()
    found = reasons_of([*(Item('caption', text) for text in texts), Item('detection', 'dogs', BOX)], parser, **options)
    assert found == [*(dropped.get(text) for text in texts), None]
    assert sorted(parser.asked) == sorted(texts)  # each once


def test_scores_of_regions_and_texts_have_their_own_limits():
    items = [Item('detection', 'dog', BOX, 0.25), Item('caption', 'a dog', None, 0.25), Item('detection', 'cat', BOX)]
    assert reasons_of(items, nms=None) == ['low_score', None, None]
    assert reasons_of(items, nms=None, min_score=0.25, min_text_score=0.3) == [None, 'low_score', None]


@pytest.mark.parametrize(
    ('text', 'listed'),
    [('It', True), ('the background', True), ('An  idea.', True), ('dog', False), ('one', False), ('left dog', False)],
)
def test_pronouns_and_abstract_nouns_are_on_the_list(text, listed):
    assert reasons_of([Item('detection', text, BOX)]) == ['blacklisted' if listed else None]
    assert reasons_of([Item('detection', text, BOX)], blacklist=False) == [None]
    assert reasons_of([Item('caption', text)]) == [None]


def test_with_a_parser_the_head_of_a_phrase_counts():
    phrase = Item('phrase_grounding', 'the time of the day', BOX, caption='the time of the day')
    assert reasons_of([phrase]) == [None]
    assert reasons_of([phrase], Parses()) == ['blacklisted']
    assert reasons_of([Item('detection', 'dogs', BOX)], Parses(), words=['dog']) == ['blacklisted']
    assert not is_blacklisted('it', ())


def test_overlapping_regions():
    # of 100 cells 60 are shared by the first two: 60 / 140; the third is the first moved by a tenth: 90 / 110
    items = [
        Item('detection', 'dog', (0.0, 0.0, 0.5, 0.2), 0.6),
        Item('detection', 'dog', (0.2, 0.0, 0.7, 0.2), 0.7),
        Item('detection', 'Dog', (0.05, 0.0, 0.55, 0.2), 0.5),
        Item('detection', 'cat', (0.0, 0.0, 0.5, 0.2), 0.4),
        Item('phrase_grounding', 'dog', (0.0, 0.0, 0.5, 0.2), 0.1, caption='dog'),
        Item('caption', 'dog'),
    ]
    o = 'overlapped'
    drops = lambda *limits: [item.drop for item in drop_overlaps(items, *limits)]  # noqa: E731
    assert drops(0.7, None) == [None, None, o, None, None, None]
    assert drops(0.4, None) == [o, None, o, None, None, None]
    assert drops(0.7, 0.9) == [None, None, o, o, None, None]
    assert drops(None, None) == [None] * 6
    # an unknown score is the highest
    known = [Item('detection', 'dog', BOX, 0.9), Item('detection', 'dog', BOX), Item('detection', 'dog', BOX)]
    assert [item.drop for item in drop_overlaps(known, 0.5, None)] == [o, None, o]
    # what has a reason hides nothing
    assert [item.drop for item in drop_overlaps([known[1].dropped('bad_box'), known[0]], 0.5, None)] == [
        'bad_box',
        None,
    ]


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        (lambda: FilterOptions(min_score=float('nan')), 'filter.min_score=nan must be from 0 to 1'),
        (lambda: FilterOptions(nms=0), 'filter.nms=0 must be above 0 and at most 1, or None'),
        (lambda: FilterOptions(words='it'), "filter.words='it' must be a list of words"),
        (lambda: FilterOptions(max_objects=1.5), 'filter.max_objects=1.5 must be a whole number from 0, or None'),
        (lambda: MergeOptions(near=0.7), 'merge.near=0.7 must be at most merge.iou=0.5'),
        (lambda: MergeOptions(add=2), 'merge.add=2 must be from 0 to 1'),
        (lambda: RefineOptions(rounds=-1), 'refine.rounds=-1 must be a whole number from 0'),
        (lambda: RefineOptions(kinds=('words',)), r"refine.kinds=\('words',\) must be some of text, region, phrase"),
        (lambda: SpacyParser('no such model'), 'spaCy'),
    ],
)
def test_options_out_of_range_are_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_a_model_of_spacy_parses(tmp_path):
    spacy = pytest.importorskip('spacy')
    nlp = spacy.blank('en')
    nlp.to_disk(tmp_path / 'blank')
    with pytest.raises(UsageError, match='has the parts none; give one with a tagger and a parser'):
        SpacyParser(str(tmp_path / 'blank'))
    train_on(nlp, spacy)
    nlp.to_disk(tmp_path / 'small')
    parser = SpacyParser(str(tmp_path / 'small'))
    assert parser.name.startswith('spacy ') and 'en_small' in parser.name
    text = 'a red dog runs'
    (parse,) = parser([text])
    assert [(word.tag, word.head) for word in parse.words] == [(tag, head) for _, _, tag, head in PARSES[text]]
    assert parse.chunks == ('a red dog',)
    assert complexity_of(parse) == Complexity(1, 1, 1, 0, 3, 1)


def train_on(nlp, spacy):
    """Teach a pipeline one sentence."""
    from spacy.training import Example

    nlp.meta['name'] = 'small'
    nlp.add_pipe('morphologizer')
    nlp.add_pipe('parser', config={'min_action_freq': 1})
    doc = nlp.make_doc('a red dog runs')
    labels = {'pos': ['DET', 'ADJ', 'NOUN', 'VERB'], 'heads': [2, 2, 3, 3], 'deps': ['det', 'amod', 'nsubj', 'ROOT']}
    example = Example.from_dict(doc, labels)
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: [example])
    for _ in range(30):
        nlp.update([example], sgd=optimizer)
