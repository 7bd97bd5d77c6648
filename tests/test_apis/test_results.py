"""Results of inferencers: one input does not end the others, and what is done is on the disk."""

import json
import os
import signal

import cv2
import forks
import numpy as np
import pytest

from florence_mm.apis.base import list_pictures, predict_each
from florence_mm.apis.inputs import Failed, free_name
from florence_mm.apis.results import ResultFile, report_failures, write_results
from florence_mm.errors import DataError, UsageError


def reciprocals(numbers):
    """A model of its own kind of trouble: a batch of two signs does not fit together."""
    if len({number > 0 for number in numbers}) > 1:
        raise RuntimeError('signs differ')
    return [1 / number for number in numbers]


def test_a_batch_that_fails_is_predicted_one_by_one():
    calls = []

    def predict(numbers):
        calls.append(list(numbers))
        return reciprocals(numbers)

    assert predict_each([2, 4], predict, str, skip=True) == [0.5, 0.25] and calls == [[2, 4]]
    assert predict_each([2, -4], predict, str, skip=True) == [0.5, -0.25]
    assert predict_each([], predict, str, skip=True) == []
    found = predict_each([2, 0, -4], predict, 'the number {}'.format, skip=True)
    assert found[::2] == [0.5, -0.25] and isinstance(found[1], Failed)
    assert found[1].startswith('the number 0 cannot be processed (ZeroDivisionError: division by zero); look at it')
    with pytest.raises(ZeroDivisionError):
        predict_each([2, 0, -4], predict, str, skip=False)


@pytest.mark.parametrize('error', [AttributeError('a bug'), KeyError('a bug'), UsageError('a setting'), SystemExit(3)])
def test_bugs_and_settings_are_no_fault_of_an_input(error):
    def predict(items):
        raise error

    with pytest.raises(type(error)):
        predict_each([1, 2], predict, str, skip=True)


def test_our_sentence_stays_and_names_the_input_once(monkeypatch):
    def predict(items):
        raise DataError(f'the image {items[0]} is too small; leave it out')

    def other(items):
        raise DataError('a side is 3 pixels; give 32')

    name = 'the image {}'.format
    assert predict_each(['a.png'], predict, name, skip=True) == ['the image a.png is too small; leave it out']
    assert predict_each(['a.png'], other, name, skip=True) == ['the image a.png: a side is 3 pixels; give 32']
    monkeypatch.setenv('FLORENCE_MM_TRACEBACK', '1')
    assert predict_each([0], other, str, skip=True) == ['0: a side is 3 pixels; give 32']
    with pytest.raises(ZeroDivisionError):
        predict_each([0], reciprocals, str, skip=True)


def test_the_file_is_complete_at_the_end_and_lines_until_then(tmp_path):
    path = tmp_path / 'new/r.json'
    with ResultFile(path) as file:
        file.add({'file': 'a.png', 'x': 1})
        assert not path.exists()
        assert (tmp_path / 'new/r.json.part').read_text() == '{"file": "a.png", "x": 1}\n'
        file.add({'file': 'ü.png', 'error': 'is empty'})
        file.finish({'classes': ['cat']}, 'images')
    whole = {'classes': ['cat'], 'images': [{'file': 'a.png', 'x': 1}, {'file': 'ü.png', 'error': 'is empty'}]}
    assert path.read_text() == json.dumps(whole, indent=1, ensure_ascii=False) + '\n'
    assert [item.name for item in path.parent.iterdir()] == ['r.json']
    with pytest.raises(UsageError, match='new is a folder'):
        ResultFile(tmp_path / 'new')


def test_results_are_written_while_they_come(tmp_path):
    path = tmp_path / 'r.json'

    def come():
        yield {'x': 1}
        assert (tmp_path / 'r.json.part').read_text() == '{"x": 1}\n'
        yield {'x': 2}

    assert list(write_results(come(), path, {'of': 'y'}, 'images')) == [{'x': 1}, {'x': 2}]
    assert json.loads(path.read_text()) == {'of': 'y', 'images': [{'x': 1}, {'x': 2}]}


def test_a_killed_run_leaves_what_was_done(tmp_path):
    path = tmp_path / 'r.json'
    path.write_text('of an earlier run')

    def run():
        with ResultFile(path) as file:
            for number in range(3):
                file.add({'number': number})
            os.kill(os.getpid(), signal.SIGKILL)

    assert forks.wait([forks.start(run)]) == [-signal.SIGKILL]
    lines = (tmp_path / 'r.json.part').read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{'number': number} for number in range(3)]
    assert path.read_text() == 'of an earlier run'


def test_an_error_leaves_what_was_done_and_no_empty_file(tmp_path):
    for count in (0, 2):
        with pytest.raises(UsageError), ResultFile(tmp_path / 'r.json') as file:
            for number in range(count):
                file.add({'number': number})
            raise UsageError('stop')
        assert (tmp_path / 'r.json.part').exists() == bool(count)


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b'caf\xe9.png')
    with ResultFile(tmp_path / 'r.json') as file:
        file.add({'file': name})
        file.finish({}, 'images')
    written = (tmp_path / 'r.json').read_bytes()
    assert rb'caf\udce9.png' in written and json.loads(written)['images'][0]['file'] == name


@pytest.mark.parametrize(('failed', 'status'), [((), 0), ((1,), 1), ((0, 1, 2), 2)])
def test_the_exit_status_and_the_number(failed, status, capsys):
    results = [{'error': f'{i} is bad'} if i in failed else {} for i in range(3)]
    assert report_failures(results, 'image') == status
    shown = capsys.readouterr()
    assert shown.err == ''.join(f'error: {i} is bad\n' for i in failed)
    assert shown.out == (f'{len(failed)} of 3 images failed\n' if failed else '')


def test_what_is_listed(tmp_path):
    (tmp_path / 'empty.png').mkdir()
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    assert list_pictures(tmp_path) == [tmp_path / 'a.png', tmp_path / 'gone.png']
    # an empty folder among others has its error when it is read, as a missing file has
    given = [str(tmp_path / 'a.png'), str(tmp_path / 'empty.png'), 'x' * 5000, 's3://bucket/a.png']
    assert list_pictures(given) == given
    for inputs, words in ((7, 'are given as 7'), ([None], 'None is among the images'), ([''], "'' is among")):
        with pytest.raises(UsageError, match=words):
            list_pictures(inputs)
    with pytest.raises(UsageError, match='empty.png has no images'):
        list_pictures([tmp_path / 'empty.png'])


def test_names_of_drawings_fit_into_a_folder(tmp_path):
    taken = set()
    names = [free_name('ü' * 127, '.png', taken) for _ in range(2)]
    assert names[0] != names[1] and all(len(name.encode()) <= 210 for name in names)
    assert free_name('a' * 20, '.png', taken) == 'a' * 20 + '.png'
