"""Bad inputs: questions and annotations in the format of VQAv2, and answer vocabularies made of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm.datasets import VQADataset
from florence_mm.formats.vqa import answer_vocabulary, read_annotations

from .case import BadInput, command
from .manifests import BLANK, pictures

AREA = 'VQAv2 files'
SETTINGS = {
    'question_file': 'questions.json',
    'ann_file': 'annotations.json',
    'answer_file': 'answers.txt',
    'img_pattern': '{}.png',
    'pipeline': [{'type': 'LoadImage'}, {'type': 'PackVQA'}],
}
RIGHT = [('what is 0?', [0]), ('what is 1?', [0]), ('what is 2?', [0])]
DEEP = b'[' * 100_000


def content() -> dict[str, list[dict]]:
    """Three questions and their annotations."""
    questions = [{'question_id': i, 'image_id': i, 'question': f'what is {i}?'} for i in range(3)]
    answers = [{'answer': 'red', 'answer_id': i} for i in range(10)]
    annotations = [
        {'question_id': i, 'image_id': i, 'answers': answers, 'multiple_choice_answer': 'red'} for i in range(3)
    ]
    return {'questions': questions, 'annotations': annotations}


def write(folder: Path, **files: Any) -> None:
    pictures(folder)
    (folder / 'answers.txt').write_text('red\ngreen\n')
    for name, entries in {**content(), **files}.items():
        data = entries if isinstance(entries, bytes) else json.dumps({name: entries}).encode()
        (folder / f'{name}.json').write_bytes(data)


def _load(folder: Path, **settings: Any) -> list[tuple[str, list[int]]]:
    """Question and labels of every sample."""
    dataset = VQADataset(**{**SETTINGS, 'data_root': str(folder), **settings})
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    return [(sample.text, sample.answer_labels.tolist()) for sample in samples]


def _argument(**settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        write(folder)
        return _load(folder, **settings)

    return run


def _changed(name: str, key: str, value: Any, **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        entries = content()[name]
        entries[1][key] = value
        if value is ...:
            del entries[1][key]
        write(folder, **{name: entries})
        return _load(folder, **settings)

    return run


def _file(name: str, data: bytes) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        write(folder, **{name: data})
        return _load(folder)

    return run


def _vocabulary(*options: str, name: str = 'annotations', data: Any = None) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        write(folder, **({} if data is None else {name: data}))
        return command('tools/dataset_converters/build_answers.py', *options).output

    return run


def cases() -> list[BadInput]:
    rows = []
    for name in ('questions', 'annotations'):
        for words, data, says in (
            ('nested 100,000 deep', DEEP, 'nested too deeply'),
            ('cut off', b'{"questions": [{"ques', 'cannot be read as JSON'),
            ('empty', b'', 'is empty'),
            ('in Latin-1', b'{"caf\xe9": 1}', 'UTF-8'),
            ('a list', b'[1, 2]', 'expected an object'),
            ('without its list', b'{"other": []}', f"no list '{name}'"),
            ('with a list of numbers', json.dumps({name: [1]}).encode(), f'{name}[0]'),
            ('with an id twice', json.dumps({name: [content()[name][0]] * 2}).encode(), 'occurs twice'),
        ):
            rows.append(BadInput(f'{name} {words}', _file(name, data), (f'{name}.json', says)))
        for value in ('1', None, 1.0, True, [1], ...):
            words = f'question_id of {name} ' + ('missing' if value is ... else repr(value))
            rows.append(BadInput(words, _changed(name, 'question_id', value), (f'{name}[1]', 'question_id')))
    for words, text in BLANK.items():
        rows.append(
            BadInput(f'a question is {words}', _changed('questions', 'question', text), ('question 1', 'empty'))
        )
    for value in (7, None, ['a'], {'a': 1}, 'a\ud800', ...):
        words = 'missing' if value is ... else repr(value)
        rows.append(BadInput(f'a question {words}', _changed('questions', 'question', value), 'question 1'))
    for value in (None, 1.5, [1], {'a': 1}, True, 'a\0b', ...):
        words = 'an image_id ' + ('missing' if value is ... else repr(value))
        rows.append(BadInput(words, _changed('questions', 'image_id', value), ('question 1', 'image_id')))
    rows.append(BadInput('a picture that is missing', _changed('questions', 'image_id', 77), ('question 1', '77.png')))
    rows.append(BadInput('answers about another picture', _changed('annotations', 'image_id', 2), 'question 1'))
    for value in (None, [], 'red', {'a': 1}, [7], [None], [['red']], [{'answer': 7}], ...):
        words = 'answers ' + ('missing' if value is ... else repr(value))
        rows.append(BadInput(words, _changed('annotations', 'answers', value), ('question 1', 'answers')))
        kept = [RIGHT[0], RIGHT[2]]
        skipped = _changed('annotations', 'answers', value, skip_bad={'max': 1})
        rows.append(BadInput(f'{words}, skipped', skipped, gives=kept))
    arguments: dict[str, tuple] = {
        'image_slice': ('ab', 3, (1,), (1, 2, 3), ('0', None), (0.5, 2), None, (True, None), {0: 1}),
        'img_pattern': (
            'x.png',
            7,
            None,
            '{:099999999d}.png',
            '{',
            '{a}.png',
            '{} {}.png',
            '{0.a}.png',
            '{:q}.png',
            '',
        ),
        'check_files': ('no', None, 1),
        'drop_unknown': ('no', None, 1),
        'exchange_pictures': ('no', None, 1),
        'question_file': (None, 7, '', ['a'], 'gone.json'),
        'ann_file': (None, 7, ['a'], 'gone.json'),
        'answer_file': (None, 7, ['a'], 'gone.txt'),
        'test_mode': ('no', None, 1),
        'skip_bad': (1, True, {'max': -1}),
        'pipeline': (None, 'PackVQA'),
        'indices': ('1', [7], 0),
    }
    for name, values in arguments.items():
        for value in values:
            says = value if isinstance(value, str) and value.startswith('gone') else name
            rows.append(BadInput(f'{name}={value!r}', _argument(**{name: value}), says))
    rows += [
        BadInput('whole files', _argument(), gives=RIGHT),
        BadInput('all but the first picture', _argument(image_slice=(1, None)), gives=RIGHT[1:]),
        BadInput('a slice without a picture', _argument(image_slice=(7, None)), 'no usable rows'),
        BadInput('an answer twice', _twice, ('2 dogs', 'two dogs')),
        BadInput(
            'the vocabulary in place of its source',
            _vocabulary('a.json', '--out', './a.json', name='a', data=b'{}'),
            'a.json',
        ),
        BadInput('the vocabulary of no questions', _vocabulary('annotations.json', '--out', 'o', data=[]), 'no answer'),
        BadInput('a file given twice', _vocabulary(*['annotations.json'] * 2, '--out', 'o'), 'each file once'),
        BadInput('a file that is missing', _vocabulary('gone.json', '--out', 'o'), 'gone.json'),
        BadInput('annotations nested deep', _vocabulary('annotations.json', '--out', 'o', data=DEEP), 'nested'),
    ]
    for value in (0, -1, 1.5, '3', None, True):
        rows.append(BadInput(f'min_count={value!r}', lambda folder, value=value: _count(folder, value), 'min_count'))
    rows.append(BadInput('answers that are blank', _blank_answers, gives=['red']))
    rows.append(BadInput('an answer of half a character', _half_answer, ('annotations.json, question 1', 'UTF-8')))
    rows.append(BadInput('a pattern with a year', _argument(img_pattern='../{0}/2014/../../{0}.png'), 'is missing'))
    rows.append(BadInput('a vocabulary in JSON', _vocabulary_in_json, ('answers.txt', 'is JSON')))
    return rows


def _twice(folder: Path) -> Any:
    write(folder)
    (folder / 'answers.txt').write_text('two dogs\n2 dogs\n')
    return _load(folder)


def _vocabulary_in_json(folder: Path) -> Any:
    write(folder)
    (folder / 'answers.txt').write_text('["red", "green"]')
    return _load(folder)


def _half_answer(folder: Path) -> Any:
    entries = content()['annotations']
    entries[1]['multiple_choice_answer'] = '\ud800'
    write(folder, annotations=entries)
    return command('tools/dataset_converters/build_answers.py', folder / 'annotations.json', '--out', folder / 'o')


def _count(folder: Path, value: Any) -> Any:
    write(folder)
    return answer_vocabulary(read_annotations([folder / 'annotations.json']), value)


def _blank_answers(folder: Path) -> Any:
    entries = content()['annotations']
    entries[1]['multiple_choice_answer'] = '\u200b'
    entries[2]['multiple_choice_answer'] = ' . '
    write(folder, annotations=entries)
    return answer_vocabulary(read_annotations([folder / 'annotations.json']), 1)
