"""Texts in tasks: any text is read as it was written, or refused."""

import random

import pytest

from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import TASKS, TaskFormat

PARTS = [
    'a',
    'é',
    '漢',
    '🙂',
    '\u200b',
    '\u00a0',
    '\x1c',
    '<',
    '>',
    '/',
    '<mask>',
    '<loc',
    '{input}',
    '\\',
    '\x00',
]
PARTS += ['<loc_x>', '<LOC_3>', '<loc_-1>', '<loc_\u0663>', '<Sep>', '[SEP]', '<image>', '</S>', "'s", '\n']
RESERVED = ['<s>', '</s>', '<pad>', '<loc_3>', '<loc_007>', '<sep>', '<poly>', '</poly>', '<od>', '<and>']


def answer(task, text):
    quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    if TASKS[task].answers == 'text':
        return Target(text)
    shape = {'quad': quad} if TASKS[task].answers == 'labelled_quads' else {'boxes': ((0.0, 0.0, 1.0, 1.0),)}
    return Target(regions=(Region(text, **shape), Region(f'{text} a', **shape)))


LABELLED = [name for name, task in TASKS.items() if task.answers not in ('boxes', 'polygons')]


@pytest.mark.parametrize('task', LABELLED)
def test_any_text_is_read_as_it_was_written(task):
    rng = random.Random(task)
    task_format = TaskFormat(16, order='given')
    for _ in range(200):
        text = ''.join(rng.choices(PARTS, k=rng.choice([1, 2, 5, 300])))
        if not text.split():
            continue
        target = answer(task, text)
        parsed = task_format.parse(task, task_format.write(task, target))
        assert parsed.target == task_format.quantised(task, target) and not parsed.faults
        assert task_format.write(task, parsed.target) == task_format.write(task, target)


@pytest.mark.parametrize('mark', RESERVED)
def test_what_would_not_be_read_as_text_is_refused(mark):
    for text in (mark, f'a {mark} b', f'<{mark}'):
        for task in LABELLED:
            with pytest.raises(ValueError, match=f', has the mark {mark} in it; take it out'):
                TaskFormat().write(task, answer(task, text))
        with pytest.raises(ValueError, match=f'has the mark {mark} in it'):
            TaskFormat().prompt('phrase_grounding', text)


def test_a_location_of_thousands_of_digits_is_no_location():
    long = f'<loc_{"9" * 5000}>'  # more than Python makes a number of
    parsed = TaskFormat().parse('detection', f'dog{long}<loc_1><loc_2><loc_3><loc_4>')
    assert parsed.target.regions[0].text == f'dog{long}'
    parsed = TaskFormat().parse('detection', 'dog<loc_999999999><loc_1><loc_2><loc_3>')
    assert parsed.faults[0] == '<loc_999999999> is beyond the 1000 locations and is left out'
