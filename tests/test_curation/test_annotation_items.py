import math
from dataclasses import replace

import pytest

from florence_mm.curation import annotation_reasons, reasons
from florence_mm.curation.annotation_items import Item, checked, item_line, items_of, kind_of, parse_item, rows_of
from florence_mm.formats.tasks import TaskRow, parse_task_row, task_line
from florence_mm.language.regions import Region
from florence_mm.language.task_list import TASKS

BOX, OTHER = (0.1, 0.2, 0.5, 0.6), (0.6, 0.1, 0.9, 0.4)
PART = ((0.1, 0.1), (0.5, 0.1), (0.5, 0.5))
QUAD = ((0.1, 0.1), (0.5, 0.1), (0.5, 0.3), (0.1, 0.3))
#: A row of each task, and how many items it has.
ROWS = {
    'caption': (TaskRow('a.jpg', 'caption', answers=('two dogs', 'dogs')), 2),
    'detailed_caption': (TaskRow('a.jpg', 'detailed_caption', answers=('two dogs run',)), 1),
    'more_detailed_caption': (TaskRow('a.jpg', 'more_detailed_caption', answers=('two dogs run.',)), 1),
    'ocr': (TaskRow('a.jpg', 'ocr', answers=('STOP',)), 1),
    'detection': (
        TaskRow('a.jpg', 'detection', regions=(Region('dog', (BOX,)), Region('dog', (OTHER,), score=0.5))),
        2,
    ),
    'dense_region_caption': (TaskRow('a.jpg', 'dense_region_caption', regions=(Region('a dog', (BOX,)),)), 1),
    'region_proposal': (TaskRow('a.jpg', 'region_proposal', regions=(Region('', (BOX,)), Region('', (OTHER,)))), 2),
    'phrase_grounding': (TaskRow('a.jpg', 'phrase_grounding', 'two dogs', regions=(Region('dogs', (BOX, OTHER)),)), 2),
    'open_vocabulary_detection': (
        TaskRow('a.jpg', 'open_vocabulary_detection', 'dogs', regions=(Region('dogs', (BOX,)),)),
        1,
    ),
    'referring_segmentation': (
        TaskRow('a.jpg', 'referring_segmentation', 'a dog', regions=(Region(polygons=(PART,)),)),
        1,
    ),
    'region_segmentation': (
        TaskRow('a.jpg', 'region_segmentation', region=BOX, regions=(Region(polygons=(PART,)),)),
        1,
    ),
    'region_category': (TaskRow('a.jpg', 'region_category', region=BOX, answers=('dog',)), 1),
    'region_description': (TaskRow('a.jpg', 'region_description', region=BOX, answers=('a dog',)), 1),
    'region_ocr': (TaskRow('a.jpg', 'region_ocr', region=BOX, answers=('STOP',)), 1),
    'ocr_with_region': (TaskRow('a.jpg', 'ocr_with_region', regions=(Region('STOP', quad=QUAD),)), 1),
}


def test_there_is_a_row_of_every_task():
    assert set(ROWS) == set(TASKS)


@pytest.mark.parametrize('task', TASKS)
def test_rows_are_taken_apart_and_put_together(task):
    row, count = ROWS[task]
    items = list(map(checked, items_of(row, 'x')))
    assert len(items) == count and {item.drop for item in items} == {None}
    assert {item.source for item in items} == {'x'} and {item.kind for item in items} == {kind_of(task)}
    assert [parse_item(item_line(item)) for item in items] == items
    assert rows_of('a.jpg', items) == [row]
    assert parse_task_row(task_line(row)) == row


def test_rows_of_several_tasks_are_in_the_order_of_their_first_items():
    items = [item for task in ('region_category', 'caption', 'detection') for item in items_of(ROWS[task][0])]
    items.insert(1, Item('region_category', 'cat', OTHER))
    found = rows_of('a.jpg', [*items, Item('region_category', 'hound', BOX, 0.5)])
    assert [row.task for row in found] == ['region_category', 'region_category', 'caption', 'detection']
    # of equally good answers the one with the highest score is the first
    assert [(row.region, row.answers) for row in found[:2]] == [(BOX, ('hound', 'dog')), (OTHER, ('cat',))]


def test_a_phrase_has_the_lowest_of_the_scores_of_its_boxes():
    items = [Item('phrase_grounding', 'dogs', box, score, caption='dogs') for box, score in ((BOX, 0.75), (OTHER, 0.5))]
    (row,) = rows_of('a.jpg', items)
    assert row.regions == (Region('dogs', (BOX, OTHER), score=0.5),)


@pytest.mark.parametrize(
    ('item', 'reason'),
    [
        (Item('detection', 'dog', (0.1, 0.2, 1.5, 0.6)), 'bad_box'),
        (Item('detection', 'dog', (0.5, 0.2, 0.5, 0.6)), 'bad_box'),
        (Item('detection', 'dog', (0.5, 0.2, 0.5000001, 0.6)), 'bad_box'),
        (Item('detection', 'dog', (0.1, math.nan, 0.5, 0.6)), 'bad_box'),
        (Item('detection', 'dog', (0.1, 0.2, 0.5)), 'bad_box'),
        (Item('detection', 'dog'), 'bad_box'),
        (Item('referring_segmentation', '', None, caption='a dog', polygons=(((0, 0), (2, 0), (0, 1)),)), 'bad_box'),
        (Item('detection', 'dog', BOX, math.nan), 'score_not_finite'),
        (Item('detection', 'dog', BOX, 1.5), 'score_not_finite'),
        (Item('detection', 'dog', BOX, -math.inf), 'score_not_finite'),
        (Item('detection', ' . ', BOX), 'blank_text'),
        (Item('caption', ''), 'blank_text'),
        (Item('caption', 'a \udce9'), 'invalid_text'),
        (Item('phrase_grounding', 'a cat', BOX, caption='a dog'), 'invalid_text'),
        (Item('detection', 'dog<loc_3>', BOX), 'invalid_text'),
    ],
)
def test_what_cannot_be_used_has_a_reason(item, reason):
    found = checked(item)
    assert found.drop == reason and found.drop in annotation_reasons.REASONS
    assert parse_item(item_line(found)) == found  # also as JSON, without NaN


def test_a_rounding_error_is_no_fault():
    assert checked(Item('detection', 'dog', (-1e-7, 0.25, 0.5, 1.0000001), 0.12345678)) == Item(
        'detection', 'dog', (0.0, 0.25, 0.5, 1.0), 0.12346
    )


def test_reasons_are_those_of_the_module_and_known_to_curation_where_shared():
    named = {value for name, value in vars(annotation_reasons).items() if name.isupper() and isinstance(value, str)}
    assert set(annotation_reasons.REASONS) == named and len(annotation_reasons.REASONS) == len(named)
    assert named & set(reasons.REASONS) >= {'low_score', 'no_image', 'undecodable', 'blank_text', 'invalid_text'}


@pytest.mark.parametrize('task', [name for name, task in TASKS.items() if task.answers != 'text'])
def test_items_have_the_shape_that_their_task_writes(task):
    row, _ = ROWS[task]
    # as of instances, which have boxes and outlines
    regions = tuple(
        replace(region, boxes=region.boxes or (BOX,), polygons=region.polygons or (PART,), quad=region.quad or QUAD)
        for region in row.regions
    )
    items = [checked(item) for item in items_of(replace(row, regions=regions), 'x')]
    assert {item.drop for item in items} == {None} and rows_of('a.jpg', items) == [row]


def test_a_box_that_would_be_empty_in_a_line_is_dropped():
    thin, thicker = (checked(Item('detection', 'dog', (0.1, 0.1, 0.1 + width, 0.5))) for width in (4e-6, 1.2e-5))
    assert thin.drop == annotation_reasons.BAD_BOX and thicker.drop is None
    parse_task_row(task_line(rows_of('a.jpg', [thicker])[0]))
