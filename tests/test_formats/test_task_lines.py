import json

import pytest

from florence_mm.formats.tasks import TaskRow, parse_task_row, task_line
from florence_mm.language.regions import Region, Target

BOX = [0.1, 0.2, 0.5, 0.6]
CORNERS = [[0.1, 0.2], [0.5, 0.2], [0.5, 0.6], [0.1, 0.6]]
ASKED = {'image': '1.jpg', 'task': 'detection'}


def test_a_line_of_each_kind_is_read_as_written():
    lines = [
        {'image': '1.jpg', 'task': 'caption', 'answers': ['a dog', 'the dog']},
        {'image': '1.jpg', 'task': 'region_category', 'region': BOX, 'answer': 'dog'},
        {'image': '1.jpg', 'task': 'detection', 'regions': [{'text': 'dog', 'boxes': [BOX], 'score': 0.75}]},
        {'image': '1.jpg', 'task': 'detection', 'regions': []},
        {
            'image': '1.jpg',
            'task': 'phrase_grounding',
            'text': 'Two dogs.',
            'regions': [{'text': 'two dogs', 'boxes': [BOX, BOX]}],
        },
        {
            'image': '1.jpg',
            'task': 'referring_segmentation',
            'text': 'the dog',
            'regions': [{'polygons': [CORNERS, CORNERS[:3]]}],
        },
        {'image': '1.jpg', 'task': 'ocr_with_region', 'regions': [{'text': 'STOP', 'quad': CORNERS}], 'source': 'mine'},
    ]
    for line in lines:
        assert json.loads(json.dumps(task_line(parse_task_row(line)))) == line
    assert parse_task_row(lines[0]).targets() == [Target('a dog'), Target('the dog')]
    row = parse_task_row(lines[-1])
    assert row.extra == {'source': 'mine'}
    assert row.targets() == [Target(regions=(Region('STOP', quad=tuple(map(tuple, CORNERS))),))]
    # the public mark is the name, and an edge that is outside by rounding is at the edge
    row = parse_task_row({'image': '1.jpg', 'task': '<OD>', 'regions': [{'text': 'a', 'boxes': [[0, 0, 1, 1 + 1e-9]]}]})
    assert row.task == 'detection' and row.regions[0].boxes == ((0.0, 0.0, 1.0, 1.0),)


def regions(*items, task='detection', **more):
    return {'image': '1.jpg', 'task': task, 'regions': list(items), **more}


@pytest.mark.parametrize(
    'line, message',
    [
        ({'task': 'caption', 'answer': 'a'}, "no 'image'; a line needs the path of a picture and the name of a task"),
        ({'image': '1.jpg', 'answer': 'a'}, "no 'task'"),
        ({'image': '1.jpg', 'task': 7, 'answer': 'a'}, 'the task 7 is not a text'),
        ({'image': '1.jpg', 'task': 'detecton', 'regions': []}, "no task 'detecton'; did you mean 'detection'"),
        (ASKED, "a line of the task detection has no answer; give 'regions'"),
        ({**ASKED, 'answer': 'dog'}, "the task detection has 'answer'; give 'regions'"),
        ({'image': '1.jpg', 'task': 'caption', 'answer': 'a', 'answers': ['b']}, "has 'answer' and 'answers'; give"),
        ({'image': '1.jpg', 'task': 'caption', 'answers': []}, '`answers` is an empty list; give at least one'),
        ({'image': '1.jpg', 'task': 'caption', 'answer': ' '}, "the answer ' ' is empty"),
        ({**ASKED, 'regions': {}}, '`regions` must be a list of objects, but is {}'),
        (regions('dog'), r"regions\[0\] must be an object with text, boxes"),
        (regions({'text': 'dog', 'boxs': [BOX]}), r"regions\[0\] has the key 'boxs'; did you mean 'boxes'"),
        (regions({'text': 'dog'}), r"region 0 \('dog'\) has no box, which detection writes"),
        (regions({'boxes': [BOX]}), 'the text of region 0 is empty'),
        (regions({'text': 'dog', 'boxes': [[0.5, 0.2, 0.1, 0.6]]}), r'regions\[0\].boxes\[0\] \(0.5, .* is empty'),
        (regions({'text': 'dog', 'boxes': [[10, 20, 50, 60]]}), r'boxes\[0\] \(10, .* is outside the picture'),
        (regions({'text': 'dog', 'boxes': [[0, 0, 1]]}), r'boxes\[0\] has 3 numbers'),
        (regions({'text': 'dog', 'boxes': [[0, 0, 1, '1']]}), r'must be a list of finite numbers'),
        (regions({'text': 'dog', 'boxes': [[0, 0, 1, float('nan')]]}), r'must be a list of finite numbers'),
        (regions({'text': 'dog', 'boxes': [BOX], 'score': 2}), r'regions\[0\].score is 2; expected'),
        (regions({'text': 'dog<loc_1>', 'boxes': [BOX]}), 'has the mark <loc_1> in it'),
        (
            regions({'text': 'a cat', 'boxes': [BOX]}, task='phrase_grounding', text='a dog'),
            "the phrase 'a cat' is not in the caption 'a dog'",
        ),
        (regions({'text': 'dog', 'boxes': [BOX]}, task='phrase_grounding'), 'takes a text and got none'),
        (regions({'text': 'dog', 'boxes': [BOX]}, text='dog'), 'detection takes nothing and got a text'),
        (
            regions({'polygons': [CORNERS[:2]]}, task='referring_segmentation', text='it'),
            r'regions\[0\].polygons\[0\] has 2 points; a polygon needs at least 3',
        ),
        (regions({'text': 'a', 'quad': CORNERS[:3]}, task='ocr_with_region'), r'quad has 3 points; give four'),
        ({'image': '1.jpg', 'task': 'region_category', 'answer': 'a'}, 'region_category takes a region and got none'),
        (
            {'image': '1.jpg', 'task': 'region_category', 'answer': 'a', 'region': [0, 0, 2, 1]},
            '`region` .* is outside the picture',
        ),
    ],
)  # fmt: skip
def test_bad_lines_have_their_sentence(line, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_task_row(line)
    assert '\n' not in str(error.value)


def test_rows_that_cannot_be_written():
    with pytest.raises(ValueError, match='the answer to caption is empty'):
        task_line(TaskRow('1.jpg', 'caption'))
    with pytest.raises(ValueError, match='detection is answered by regions, and the row has a text'):
        task_line(TaskRow('1.jpg', 'detection', answers=('dog',)))
    with pytest.raises(ValueError, match='caption is answered by text, and the row has regions'):
        task_line(TaskRow('1.jpg', 'caption', answers=('dog',), regions=(Region('dog'),)))


@pytest.mark.parametrize('thin', [(0.1, 0.1, 0.100001, 0.5), (0.1, 0.5, 0.2, 0.500001)])
def test_a_box_that_is_empty_when_rounded_is_not_written(thin):
    for row in (
        TaskRow('1.jpg', 'detection', regions=(Region('dog', boxes=(thin,)),)),
        TaskRow('1.jpg', 'region_category', region=thin, answers=('dog',)),
    ):
        with pytest.raises(ValueError, match=r'is empty; give x0 < x1 and y0 < y1'):
            task_line(row)
