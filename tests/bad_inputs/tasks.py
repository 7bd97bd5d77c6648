"""Bad inputs: targets, prompts and answers of tasks."""

from collections.abc import Callable
from pathlib import Path

from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import TaskFormat

from .case import BadInput

AREA = 'prompts, targets and answers of tasks'
FORMAT = TaskFormat()
BOX = '<loc_1><loc_2><loc_3><loc_4>'
SQUARE = ((0.1, 0.1), (0.5, 0.1), (0.5, 0.5), (0.1, 0.5))


def _write(task: str, *regions: Region, given: str | None = None) -> Callable[[Path], str]:
    return lambda folder: FORMAT.write(task, Target(regions=regions), given=given)


def _faults(task: str, text: str, given: str | None = None) -> Callable[[Path], tuple]:
    def parse(folder: Path) -> tuple:
        parsed = FORMAT.parse(task, text, given)
        return (
            len(parsed.target.regions),
            parsed.text == text,
            [fault.split(' and is left')[0] for fault in parsed.faults],
        )

    return parse


def cases() -> list[BadInput]:
    boxes = {
        'left of the picture': ((-0.1, 0, 0.5, 0.5), 'outside the picture'),
        'beyond its right edge': ((0.5, 0, 1.001, 0.5), 'outside the picture'),
        'in pixels': ((12, 20, 300, 200), ('outside the picture', 'fractions')),
        'of no width': ((0.5, 0, 0.5, 0.5), 'is empty'),
        'that ends before it begins': ((0, 0.5, 0.5, 0.4), 'is empty'),
        'that is not a number': ((0, 0, float('nan'), 1), 'outside the picture'),
        'of three numbers': ((0, 0, 1), 'has 3 numbers'),
    }
    rows = [
        BadInput(f'a box {words}', _write('detection', Region('dog', boxes=(box,))), says)
        for words, (box, says) in boxes.items()
    ]
    rows += [
        BadInput(
            f'a region prompt with a box {words}', lambda folder, box=box: FORMAT.prompt('region_ocr', region=box), says
        )
        for words, (box, says) in boxes.items()
    ]
    polygons = {
        'of two points': (SQUARE[:2], 'has 2 points'),
        'of no point': ((), 'has 0 points'),
        'with a point outside the picture': ((*SQUARE, (1.5, 0)), 'outside the picture'),
        'with points of one number': (((0.5,),) * 3, 'has a point of 1 numbers'),
    }
    rows += [
        BadInput(f'a polygon {words}', _write('region_segmentation', Region(polygons=(points,))), says)
        for words, (points, says) in polygons.items()
    ]
    rows += [
        BadInput(
            'a polygon on one bin',
            _write('region_segmentation', Region(polygons=(((0.5, 0.5),) * 4,))),
            gives='<loc_500>' * 6,
        ),
        BadInput(
            'a box on one bin',
            _write('detection', Region('a', ((0.5, 0.5, 0.5001, 0.5001),))),
            gives='a' + '<loc_500>' * 4,
        ),
        BadInput('a picture without objects', _write('detection'), gives=''),
        BadInput(
            'a quadrilateral of three corners', _write('ocr_with_region', Region('a', quad=SQUARE[:3])), 'has 3 corners'
        ),
        BadInput('a region without a box', _write('detection', Region('dog')), ("'dog'", 'has no box')),
        BadInput('a region without a text', _write('detection', Region(boxes=((0, 0, 1, 1),))), 'is empty'),
        BadInput('a text with a mark in it', _write('detection', Region('a<sep>', ((0, 0, 1, 1),))), 'the mark <sep>'),
        BadInput(
            'a phrase that is not in the caption',
            _write('phrase_grounding', Region('cat', ((0, 0, 1, 1),)), given='a dog'),
            ("'cat' is not in the caption 'a dog'",),
        ),
        BadInput(
            'a part of a word as phrase',
            _write('phrase_grounding', Region('do', ((0, 0, 1, 1),)), given='a dog'),
            "'do'",
        ),
        BadInput('an empty caption', lambda folder: FORMAT.write('caption', Target()), 'is empty'),
        BadInput('an unknown task', lambda folder: FORMAT.prompt('detektion'), "did you mean 'detection'"),
        BadInput('an unknown mark', lambda folder: FORMAT.parse('<ODD>', ''), "did you mean '<OD>'"),
        BadInput('a task without the text it takes', lambda folder: FORMAT.prompt('phrase_grounding'), 'takes a text'),
        BadInput('a task with a text it does not take', lambda folder: FORMAT.prompt('ocr', 'a dog'), 'takes nothing'),
        BadInput('one location per side', lambda folder: TaskFormat(1), 'at least 2'),
        BadInput('an unknown order', lambda folder: TaskFormat(order='size'), "'size'"),
    ]
    answers = {
        'a sentence for boxes': (
            'detection',
            'a dog',
            0,
            ["the text 'a dog' has no box", "the answer 'a dog' has no region that answers detection"],
        ),
        'three locations for a box': (
            'detection',
            'dog<loc_1><loc_2><loc_3>',
            0,
            [
                "<loc_1><loc_2><loc_3> behind the text 'dog' is not a box of 4 locations",
                "the text 'dog' has no box",
                "the answer 'dog<loc_1><loc_2><loc_3>' has no region that answers detection",
            ],
        ),
        'a box without its text': ('detection', f'{BOX}dog{BOX}', 1, [f'{BOX} has no text before it']),
        'a location beyond the last': (
            'detection',
            f'dog<loc_1000>{BOX}',
            1,
            ['<loc_1000> is beyond the 1000 locations'],
        ),
        'a text for proposals': (
            'region_proposal',
            f'dog{BOX}',
            1,
            ["region_proposal is answered by locations alone; the text 'dog' is left out"],
        ),
        'two points for an outline': (
            'region_segmentation',
            BOX,
            0,
            [
                f'the polygon {BOX} has 2 points, less than 3,',
                f'the answer {BOX!r} has no region that answers region_segmentation',
            ],
        ),
        'nothing': ('detection', '', 0, []),
    }
    for words, (task, text, count, faults) in answers.items():
        rows.append(BadInput(f'a model that writes {words}', _faults(task, text), gives=(count, True, faults)))
    return rows
