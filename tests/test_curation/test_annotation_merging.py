import pytest

from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_merging import merge_predictions, merge_sources
from florence_mm.curation.annotation_options import MergeOptions

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)
#: LEFT moved by a tenth of the picture: 12 of 20 cells are shared, so that they overlap by 0.6.
MOVED = (0.1, 0.0, 0.5, 0.4)
#: LEFT moved by three tenths: 4 of 28 cells, 1 / 7.
FAR = (0.3, 0.0, 0.7, 0.4)
DETECTS = ('detection',)


def dog(box=LEFT, score=None, text='dog', **fields):
    return Item('detection', text, box, score, **fields)


def merged(old, new, tasks=DETECTS, **options):
    found = merge_predictions(old, new, MergeOptions(**options), tasks)
    assert len(found) == len(old) + len(new)
    return found


def test_agreement_raises_the_score_and_moves_the_box():
    found = merged([dog(score=0.5)], [dog(MOVED, 0.75, source='model')])
    # 1 - 0.5 * 0.25; the box goes 0.75 / 1.25 = 0.6 of the way of a tenth
    assert found[0] == dog((0.06, 0.0, 0.46, 0.4), 0.875)
    assert found[1].drop == 'merged'
    assert merged([dog(score=0.5)], [dog(MOVED, 0.75)], move=False)[0] == dog(LEFT, 0.875)


def test_an_annotation_without_a_score_has_the_prior():
    assert merged([dog()], [dog(score=0.5)], prior=0.6)[0].score == 0.8  # 1 - 0.4 * 0.5
    # and a prediction without one is certain
    assert merged([dog()], [dog()])[0].score == 1


def test_another_text_at_the_place_contradicts():
    found = merged([dog(score=0.8)], [dog(MOVED, 0.75, 'cat')])
    assert found[0] == dog(score=0.2)  # 0.8 * 0.25
    assert found[1] == dog(MOVED, 0.75, 'cat')  # is added
    # a weak one lowers no more than silence does
    assert merged([dog(score=0.8)], [dog(MOVED, 0.25, 'cat')])[0].score == 0.4
    # another task or caption says nothing of it
    phrase = Item('phrase_grounding', 'cat', LEFT, 0.75, caption='a cat')
    assert merged([dog(score=0.8)], [phrase])[0].score == 0.4


def test_the_text_at_another_place_near_by_contradicts():
    assert merged([dog(score=0.8)], [dog(FAR, 0.75)])[0].score == 0.2
    assert merged([dog(score=0.8)], [dog(RIGHT, 0.75)])[0].score == 0.4  # silence: it is far away
    assert merged([dog(score=0.8)], [dog(FAR, 0.75)], near=0.2)[0].score == 0.4
    # one that belongs to another old annotation contradicts nothing
    found = merged([dog(score=0.8), dog(FAR, 0.8)], [dog(FAR, 0.75), dog(LEFT, 0.75)])
    assert [item.score for item in found[:2]] == [0.95, 0.95]


def test_agreement_and_contradiction_at_once():
    # raised to 1 - 0.5 * 0.5 = 0.75, and then times 0.6
    assert merged([dog(score=0.5)], [dog(score=0.5), dog(score=0.4, text='cat')])[0].score == 0.45


def test_silence_lowers_what_the_model_looks_for_alone():
    caption = Item('caption', 'a dog')
    found = merged([dog(score=0.8), caption, dog()], [], unseen=0.25)
    assert found == [dog(score=0.2), caption, dog(score=0.125)]
    assert merged([dog(score=0.8)], [], tasks=('phrase_grounding',))[0] == dog(score=0.8)


def test_what_is_new_is_added_from_a_score_on():
    found = merged([], [dog(score=0.5), dog(RIGHT, 0.49), dog(FAR)])
    assert [item.drop for item in found] == [None, 'not_added', None]


def test_pairs_are_one_to_one_and_the_closest_first():
    found = merged([dog(MOVED, 0.5), dog(LEFT, 0.5)], [dog(LEFT, 0.5), dog(LEFT, 0.4)])
    # the second has the first prediction, and the first the second
    assert [item.score for item in found[:2]] == [0.7, 0.75]
    assert [item.drop for item in found[2:]] == ['merged', 'merged']
    # of two for one the other is added
    assert [item.drop for item in merged([dog()], [dog(score=0.5), dog(score=0.6)])[1:]] == ['merged', None]


def test_what_has_a_reason_takes_no_part():
    old, new = dog(drop='bad_box'), dog(score=0.9, drop='score_not_finite')
    assert merged([old, dog(RIGHT, 0.8)], [new]) == [old, dog(RIGHT, 0.4), new]


def test_texts_agree_where_they_are_equal():
    old = [Item('caption', 'A dog.', None, 0.5), Item('caption', 'a cat')]
    found = merged(old, [Item('caption', 'a  dog', None, 0.5), Item('caption', 'two dogs', None, 0.6)])
    assert [(item.text, item.score, item.drop) for item in found] == [
        ('A dog.', 0.75, None),
        ('a cat', None, None),
        ('a  dog', 0.5, 'merged'),
        ('two dogs', 0.6, None),
    ]


def test_an_outline_is_that_of_the_higher_score():
    part = ((0.0, 0.0), (0.4, 0.0), (0.4, 0.4))
    other = ((0.1, 0.0), (0.5, 0.0), (0.5, 0.4))
    made = lambda box, score, outline: dog(box, score, polygons=(outline,) if outline else ())  # noqa: E731
    assert merged([made(LEFT, 0.5, part)], [made(MOVED, 0.75, other)])[0] == made(MOVED, 0.875, other)
    assert merged([made(LEFT, 0.75, part)], [made(MOVED, 0.5, other)])[0] == made(LEFT, 0.875, part)
    assert merged([made(LEFT, 0.5, part)], [made(MOVED, 0.75, None)])[0] == made(LEFT, 0.875, part)


def test_sources_are_merged_without_contradiction():
    items = [dog(score=0.5, source='a'), dog(RIGHT, 0.5, source='a'), dog(MOVED, 0.75, source='b')]
    items += [dog(LEFT, 0.9, 'puppy', source='b'), dog(RIGHT, 0.5, source='c'), dog(RIGHT, 0.5, source='c')]
    found = merge_sources(items, MergeOptions())
    assert [item.score for item in found] == [0.875, 0.75, 0.75, 0.9, 0.5, 0.5]
    assert [item.drop for item in found] == [None, None, 'merged', None, 'merged', None]
    assert found[0].box == pytest.approx((0.06, 0.0, 0.46, 0.4))
    # those of one source are not merged with each other
    assert merge_sources(items[:2] * 2, MergeOptions()) == items[:2] * 2
