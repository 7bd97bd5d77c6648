import random

import numpy as np
import pytest
from random_targets import random_target

from florence_mm.language.regions import Region, Target, clip_box
from florence_mm.language.tasks import TASKS, TaskFormat, find_task

FORMAT = TaskFormat()
every_task = pytest.mark.parametrize('task', TASKS)


def boxes(text, *four, bins=1000):
    """A region whose boxes begin and end at whole bins."""
    return Region(text, boxes=tuple(tuple(number / bins for number in box) for box in four))


def centres(*bins, num_bins=1000):
    return tuple((number + 0.5) / num_bins for number in bins)


def locations(*bins):
    return ''.join(f'<loc_{number}>' for number in bins)


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_there_are_fifteen_tasks_with_their_public_marks():
    assert len(TASKS) == len({task.mark for task in TASKS.values()}) == len({t.sentence for t in TASKS.values()}) == 15
    for name, task in TASKS.items():
        assert find_task(name) is find_task(task.mark) is task and task.name == name
    assert [name for name, task in TASKS.items() if task.takes == 'region'] == [
        'region_segmentation',
        'region_category',
        'region_description',
        'region_ocr',
    ]
    assert [name for name, task in TASKS.items() if task.takes == 'text'] == [
        'phrase_grounding',
        'open_vocabulary_detection',
        'referring_segmentation',
    ]


def test_prompts():
    assert FORMAT.prompt('caption') == FORMAT.prompt('<CAPTION>') == 'What does the image describe?'
    assert (
        FORMAT.prompt('phrase_grounding', ' a {dog}  on grass') == 'Locate the phrases in the caption: a {dog} on grass'
    )
    assert FORMAT.prompt('referring_segmentation', 'the dog') == 'Locate the dog in the image with mask'
    prompt = TaskFormat(num_bins=64).prompt('region_category', region=(0, 0.5, 0.999, 1))
    assert prompt == 'What is the region <loc_0><loc_32><loc_63><loc_63>?'


def test_prompts_that_cannot_be():
    for call, message in (
        (('captoin',), "there is no task 'captoin'; did you mean 'caption'"),
        (('<ODD>',), "there is no task '<ODD>'; did you mean '<OD>'"),
        (('vqa',), "there is no task 'vqa'; give one of caption, detailed_caption, more_detailed_caption, detection"),
        (('phrase_grounding',), 'phrase_grounding takes a text and got none; give one'),
        (('caption', 'a dog'), "caption takes nothing and got a text, 'a dog'; leave it out"),
        (('region_ocr', 'a dog'), "region_ocr takes a region and got a text, 'a dog'; leave it out"),
        (('region_ocr',), 'region_ocr takes a region and got none; give one'),
        (('phrase_grounding', ' '), 'the text given with phrase_grounding is empty; give at least one word'),
        (('phrase_grounding', 'a <sep>'), "given with phrase_grounding, 'a <sep>', has the mark <sep> in it; take it"),
        (('region_ocr', None, (0, 0, 1.2, 1)), r'region_ocr \(0, 0, 1.2, 1\) is outside the picture; give fractions'),
        (('region_ocr', None, (0.5, 0, 0.5, 1)), r'\(0.5, 0, 0.5, 1\) is empty; give x0 < x1 and y0 < y1'),
        (('region_ocr', None, (0, 0, 1)), 'given with region_ocr has 3 numbers; give x0, y0, x1, y1'),
    ):
        with pytest.raises(ValueError, match=message):
            FORMAT.prompt(*call)


# --- answers by hand --------------------------------------------------------------------------------------------------


def test_boxes_by_hand():
    target = Target(
        regions=(
            boxes('cat', (500, 500, 600, 600)),
            boxes(' big  dog', (10, 700, 20, 720), (10, 20, 500, 601)),  # both begin lines: the higher one is first
        )
    )
    big, small = locations(10, 20, 500, 601), locations(10, 700, 20, 720)
    cat = locations(500, 500, 600, 600)
    # the dogs together reach from 20 to 720, with their centre above the cat's
    assert FORMAT.write('detection', target) == f'big dog{big}{small}cat{cat}'
    assert FORMAT.write('region_proposal', target) == big + cat + small
    assert TaskFormat(order='given').write('dense_region_caption', target) == f'cat{cat}big dog{small}{big}'
    assert TaskFormat(order='area').write('open_vocabulary_detection', target) == f'big dog{big}{small}cat{cat}'
    parsed = FORMAT.parse('detection', f'big dog{big}{small}cat{cat}')
    assert parsed.target == Target(
        regions=(
            Region('big dog', boxes=(centres(10, 20, 500, 601), centres(10, 700, 20, 720))),
            Region('cat', boxes=(centres(500, 500, 600, 600),)),
        )
    )
    assert not parsed.faults and parsed.text == f'big dog{big}{small}cat{cat}'


def test_bins_are_those_of_whole_pixels_too():
    # 57 / 100 * 100 is below 57 in floating point
    for size in (100, 640, 1000):
        whole = TaskFormat(num_bins=size)
        assert [whole.bin_of(pixel / size) for pixel in range(size + 1)] == [*range(size), size - 1]


def test_lines_are_read_from_the_left():
    # tops and bottoms of one line differ a little
    words = {'one': (0, 12, 20, 30), 'two': (30, 10, 50, 28), 'three': (5, 40, 20, 60), 'four': (40, 45, 60, 58)}
    regions = tuple(boxes(name, box, bins=100) for name, box in reversed(words.items()))
    written = TaskFormat(num_bins=100).quantised('detection', Target(regions=regions))
    assert [region.text for region in written.regions] == ['one', 'two', 'three', 'four']


def test_outlines_by_hand():
    square = ((0.9, 0.9), (0.9, 0.7), (0.7, 0.7), (0.7, 0.9))  # counter-clockwise from the right bottom
    triangle = ((0.1, 0.1), (0.3, 0.1), (0.1, 0.3))
    speck = ((0.5, 0.5), (0.5001, 0.5), (0.5, 0.5001))  # smaller than a bin
    first = locations(100, 100, 300, 100, 100, 300)
    second = locations(700, 700, 900, 700, 900, 900, 700, 900)
    one = Target(regions=(Region(polygons=(square, speck, triangle)),))
    assert FORMAT.write('referring_segmentation', one) == f'{first}<sep>{second}'
    two = Target(regions=(Region(polygons=(square,)), Region(polygons=(triangle,))))
    assert FORMAT.write('region_segmentation', two) == f'<poly>{first}</poly><poly>{second}</poly>'
    named = Target(regions=(Region('dog', polygons=(square, triangle)),))
    assert FORMAT.write('open_vocabulary_detection', named) == f'dog<poly>{first}<sep>{second}</poly>'
    alone = Target(regions=(Region(polygons=(speck,)),))
    assert FORMAT.write('referring_segmentation', alone) == locations(*[500] * 6)
    parsed = FORMAT.parse('open_vocabulary_detection', f'dog<poly>{first}<sep>{second}</poly><poly>{first}</poly>')
    assert [(region.text, len(region.polygons)) for region in parsed.target.regions] == [('dog', 2), ('dog', 1)]
    assert parsed.target.regions[1].polygons == ((centres(100, 100), centres(300, 100), centres(100, 300)),)
    assert not parsed.faults


def test_quadrilaterals_run_clockwise_from_the_top_left():
    corners = [(200, 100), (400, 150), (390, 250), (190, 200)]
    expected = 'exit' + locations(*[number for corner in corners for number in corner])
    quad = [(x / 1000, y / 1000) for x, y in corners]
    for start in range(4):
        for turned in (quad[start:] + quad[:start], (quad[start:] + quad[:start])[::-1]):
            target = Target(regions=(Region('exit', quad=tuple(turned)),))
            assert FORMAT.write('ocr_with_region', target) == expected
            given = TaskFormat(quad_start='given').quantised('ocr_with_region', target).regions[0].quad
            assert given[0] == centres(*(round(1000 * number) for number in turned[0]))
            assert set(given) == {centres(*corner) for corner in corners}
            if start in (0, 2):  # any first corner keeps the direction
                area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(given, given[1:] + given[:1], strict=True))
                assert area > 0
    assert not FORMAT.parse('ocr_with_region', expected).faults


# --- round trips ------------------------------------------------------------------------------------------------------


@every_task
@pytest.mark.parametrize('order', ['reading', 'area', 'given', 'random'])
def test_what_is_written_parses_to_the_quantised_target(task, order):
    rng = random.Random(f'{task} {order}')
    longest = 0
    for number in range(60):
        task_format = TaskFormat(rng.choice([2, 7, 64, 1000]), order, rng.choice(['top_left', 'given']))
        target = random_target(rng, task)
        written = task_format.write(task, target, np.random.default_rng(number))
        quantised = task_format.quantised(task, target, np.random.default_rng(number))
        parsed = task_format.parse(task, written)
        assert parsed.target == quantised and not parsed.faults and parsed.text == written
        assert task_format.parse(task, f'</s><s>{written}</s><pad>').target == quantised
        # each region was read where it was written
        assert len(parsed.places) == len(quantised.regions)
        longest = max(longest, len(quantised.regions))
        if order != 'random':  # what is quantised stays as it is
            assert task_format.quantised(task, quantised) == quantised
            assert task_format.write(task, quantised) == written
    assert longest >= 3 or find_task(task).answers == 'text'


@every_task
@pytest.mark.parametrize('order', ['reading', 'area'])
def test_the_order_that_is_given_does_not_matter(task, order):
    rng, written = random.Random(task), TaskFormat(64, order)
    for _ in range(30):
        target = random_target(rng, task)
        other = Target(target.text, tuple(rng.sample(target.regions, len(target.regions))))
        if task != 'phrase_grounding':
            assert written.write(task, target) == written.write(task, other)
        elif target != other:  # the caption's order
            texts = [[region.text for region in written.quantised(task, x).regions] for x in (target, other)]
            assert texts == [[region.text for region in x.regions] for x in (target, other)]


def test_random_orders_are_drawn_from_rng():
    target = Target(regions=tuple(boxes(name, (0, 0, 10, 10), (20, 20, 30, 30)) for name in 'abcdef'))
    shuffled = TaskFormat(order='random')
    seen = {shuffled.write('detection', target, np.random.default_rng(seed)) for seed in range(20)}
    assert len(seen) == 20
    assert shuffled.write('detection', target, np.random.default_rng(3)) in seen
    assert len({''.join(sorted(text)) for text in seen}) == 1
    with pytest.raises(ValueError, match="order='random' needs a source of random numbers; give rng"):
        shuffled.write('detection', target)


def test_centres_lie_half_a_bin_from_what_was_given():
    rng = random.Random(0)
    for bins in (7, 64, 1000):
        for _ in range(50):
            box = (*sorted(rng.sample(range(10**6), 2)), *sorted(rng.sample(range(10**6), 2)))
            box = tuple(number / 10**6 for number in (box[0], box[2], box[1], box[3]))
            target = Target(regions=(Region('a', boxes=(box,)),))
            if (found := TaskFormat(bins).bin_of)(box[0]) == found(box[2]) or found(box[1]) == found(box[3]):
                continue
            (found,) = TaskFormat(bins).quantised('detection', target).regions[0].boxes
            assert np.abs(np.subtract(found, box)).max() <= 0.5 / bins + 1e-9

    # two edges in one bin keep some room between them
    (found,) = TaskFormat(4).quantised('detection', Target(regions=(Region('a', boxes=((0.3, 0, 0.4, 1),)),))).regions
    assert found.boxes == ((1.25 / 4, 0.5 / 4, 1.75 / 4, 3.5 / 4),)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_targets_that_answer_nothing():
    square = ((0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2))
    dog = boxes('dog', (0, 0, 10, 10))
    for task, target, message in (
        ('detection', Target(regions=(dog, Region('cat'))), r"region 1 \('cat'\) has no box, which detection writes"),
        ('detection', Target(regions=(boxes('', (0, 0, 1, 1)),)), 'the text of region 0 is empty; give at least one'),
        ('detection', Target(regions=(boxes('a<loc_1>', (0, 0, 1, 1)),)), 'has the mark <loc_1> in it; take it out'),
        ('detection', Target('a dog'), "detection is answered by regions and got the text 'a dog'; give"),
        (
            'detection',
            Target(regions=(boxes('a', (0, 0, 1001, 9)),)),
            r"box of region 0 \('a'\) .* outside the picture",
        ),
        ('detection', Target(regions=(boxes('a', (5, 0, 5, 9)),)), r'\(0.005, 0, 0.005, 0.009\) is empty'),
        ('detection', Target(regions=(Region('a', boxes=((float('nan'), 0, 1, 1),)),)), 'outside the picture'),
        (
            'region_proposal',
            Target(regions=(Region(polygons=(square,)),)),
            'region 0 has no box, which',
        ),
        ('caption', Target(), 'the answer to caption is empty; give at least one word'),
        ('caption', Target('a', (dog,)), 'caption is answered by a text and got 1 regions; give a text alone'),
        ('referring_segmentation', Target(regions=(dog,)), 'has no polygon, which referring_segmentation writes; give'),
        ('region_segmentation', Target(regions=(Region(polygons=(square[:2],)),)), 'has 2 points; a polygon needs at'),
        ('region_segmentation', Target(regions=(Region(polygons=(((0, 0, 0),) * 3,)),)), 'has a point of 3 numbers'),
        ('ocr_with_region', Target(regions=(dog,)), r"\('dog'\) has no quadrilateral, which ocr_with_region writes"),
        ('ocr_with_region', Target(regions=(Region('a', quad=square[:3]),)), 'has 3 corners; give 4'),
        ('open_vocabulary_detection', Target(regions=(Region('a'),)), r"\('a'\) has no box, which open_vocabulary"),
    ):
        for function in (FORMAT.write, FORMAT.quantised):
            with pytest.raises(ValueError, match=message):
                function(task, target)


def test_an_empty_picture_is_answered_by_nothing():
    for task in ('detection', 'region_proposal', 'ocr_with_region', 'referring_segmentation'):
        assert FORMAT.write(task, Target()) == '' and FORMAT.parse(task, '') == FORMAT.parse(task, '<s></s>')
        assert FORMAT.parse(task, '').target == Target() and not FORMAT.parse(task, '').faults


def test_boxes_are_clipped_by_hand_and_rounding_errors_by_itself():
    assert clip_box((-3, 0.2, 0.5, 7)) == (0, 0.2, 0.5, 1)
    assert clip_box((-3, 0.2, 0, 7)) is None
    target = Target(regions=(Region('a', boxes=((-1e-8, 0, 1 + 1e-8, 1),)),))
    assert FORMAT.write('detection', target) == 'a' + locations(0, 0, 999, 999)


def test_phrases_are_of_the_caption():
    caption = 'The small dog, and a cat.'
    for phrase in ('the small dog', 'a  cat', 'cat', 'dog, and'):
        target = Target(regions=(boxes(phrase, (0, 0, 10, 10)),))
        written = FORMAT.write('phrase_grounding', target, given=caption)
        assert not FORMAT.parse('phrase_grounding', written, given=caption).faults
    for phrase in ('big dog', 'do', 'ca', 'mall dog'):
        target = Target(regions=(boxes(phrase, (0, 0, 10, 10)),))
        message = f"the phrase '{phrase}' is not in the caption '{caption}'"
        with pytest.raises(ValueError, match=f'{message}; give phrases of the caption'):
            FORMAT.write('phrase_grounding', target, given=caption)
        parsed = FORMAT.parse('phrase_grounding', FORMAT.write('phrase_grounding', target), given=caption)
        assert parsed.faults == (message,) and parsed.target.regions[0].text == phrase
        assert not FORMAT.parse('open_vocabulary_detection', FORMAT.write('detection', target), given=caption).faults


def test_settings_that_cannot_be():
    for kwargs, message in (
        ({'num_bins': 1}, 'num_bins is 1; give at least 2'),
        ({'order': 'size'}, "order is 'size'; give 'reading', 'area', 'given' or 'random'"),
        ({'quad_start': 'left'}, "quad_start is 'left'; give 'top_left' or 'given'"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskFormat(**kwargs)


# --- what does not parse ----------------------------------------------------------------------------------------------


def test_what_does_not_parse_comes_back_with_a_sentence():
    ten = locations(10, 10, 20, 20)
    for task, text, regions, faults in (
        (
            'detection',
            'a dog on grass',
            0,
            ["'a dog on grass' has no box and", "'a dog on grass' has no region"],
        ),
        ('detection', f'{ten}dog{ten}', 1, [f'{ten} has no text before it and is left out']),
        ('detection', f'dog{ten}<loc_1><loc_2>', 1, ["<loc_1><loc_2> behind the text 'dog' is not a box of 4"]),
        ('detection', f'dog{locations(20, 10, 10, 20)}{ten}', 1, ['the box <loc_20><loc_10><loc_10><loc_20> ends']),
        ('detection', f'dog<loc_1000>{ten}', 1, ['<loc_1000> is beyond the 1000 locations and is left out']),
        ('detection', f'<od>dog{ten}<sep></od>', 1, ['<od> is no part', '<sep> is no part', '</od> is no part']),
        ('detection', f'dog cat <and> bird{ten}', 1, ['<and> is no part of an answer to detection']),
        ('detection', f'dog{ten}cat', 1, ["the text 'cat' has no box and is left out"]),
        ('region_proposal', f'dog{ten}', 1, ["region_proposal is answered by locations alone; the text 'dog' is"]),
        ('caption', f'a dog{ten}', 0, [f'caption is answered by a text alone; {ten} in it is left out']),
        ('ocr_with_region', f'exit{ten}', 0, [f'{ten} behind', "'exit' has no quadrilateral", 'has no region']),
        ('ocr_with_region', f'exit{ten * 3}', 1, [f"{ten} behind the text 'exit' is not its quadrilateral"]),
        ('region_segmentation', f'{ten}', 0, [f'the polygon {ten} has 2 points, less than 3', 'has no region that']),
        ('region_segmentation', f'{ten}{ten}<loc_7>', 1, ['<loc_7>, the last of 9 locations, has no y']),
        ('region_segmentation', f'{ten}{ten}<sep>', 1, []),
        ('region_segmentation', f'<loc_3><poly>{ten}{ten}', 1, ['<loc_3> is outside <poly> and </poly>']),
        ('open_vocabulary_detection', f'dog<poly>{ten}</poly>', 0, ['has 2 points', 'has no region']),
    ):
        parsed = FORMAT.parse(task, text)
        assert len(parsed.target.regions) == regions and parsed.text == text
        assert len(parsed.faults) == len(faults), parsed.faults
        for fault, expected in zip(parsed.faults, faults, strict=True):
            assert expected in fault


def test_parts_that_parse_are_kept():
    parsed = FORMAT.parse('detection', f'dog<and>s{locations(1, 2, 3, 4)}')
    assert parsed.target.regions == (Region('dog s', boxes=(centres(1, 2, 3, 4),)),)
    assert FORMAT.parse('caption', 'a<sep> dog').target == Target('a dog')
    assert FORMAT.parse('region_segmentation', '').target == Target()


@every_task
def test_nothing_that_is_written_raises(task):
    rng = random.Random(task)
    parts = ['dog', ' ', '<sep>', '<poly>', '</poly>', '<od>', '<loc_', '>', *map(locations, (0, 3, 6, 7, 8, 99))]
    faults = 0
    for _ in range(300):
        text = ''.join(rng.choices(parts, [1, 1, 1, 1, 1, 0.2, 0.2, 0.2, *[3] * 5, 0.3], k=rng.randint(0, 24)))
        parsed = TaskFormat(8).parse(task, text)
        faults += bool(parsed.faults)
        assert TaskFormat(8).parse(task, text) == parsed
        for region in parsed.target.regions:
            assert region.boxes or region.polygons or region.quad
        if parsed.target != Target():  # what did parse can be written
            assert not TaskFormat(8).parse(task, TaskFormat(8).write(task, parsed.target)).faults
    assert faults > 100
