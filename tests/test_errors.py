import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from florence_mm import errors
from florence_mm.errors import DataError, UsageError, one_sentence_errors, user_sentence
from florence_mm.language.labels import text_label
from florence_mm.registry import METRICS


def caught(function):
    with pytest.raises(Exception) as info:
        function()
    return info.value


def test_sentences_of_ours_and_faults_of_the_program():
    assert user_sentence(UsageError('do this')) == 'do this'
    # raised on purpose in florence_mm
    assert 'is empty after normalisation' in user_sentence(caught(lambda: text_label('...')))
    # an accident in a line of florence_mm, and errors from elsewhere
    assert user_sentence(caught(lambda: text_label(None))) is None
    assert user_sentence(caught(lambda: int('x'))) is None
    assert user_sentence(caught(lambda: torch.zeros(2) @ torch.zeros(3))) is None


def test_what_the_system_says_of_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    for path, what in ((tmp_path / 'file/below', 'Not a directory'), (tmp_path / 'none', 'No such file or directory')):
        with pytest.raises(OSError) as caught:
            path.open()
        assert user_sentence(caught.value) == f'{path}: {what}; check the path, its rights and the disk'
    # an error of a connection names no file
    assert user_sentence(OSError(111, 'Connection refused')) is None


def test_through_a_builder_of_mmengine():
    error = caught(lambda: METRICS.build({'type': 'ImageTextRecall', 'topk': ()}))
    sentence = user_sentence(error)
    assert sentence and not sentence.startswith('class `')


class Worker(torch.utils.data.Dataset):
    def __init__(self, value):
        self.value = value

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return text_label(self.value)


@pytest.mark.parametrize('workers', [0, 1])
def test_from_a_worker(workers):
    sentence = user_sentence(caught(lambda: list(DataLoader(Worker('...'), num_workers=workers))))
    assert sentence == "text '...' is empty after normalisation; give a caption or a class name"
    assert user_sentence(caught(lambda: list(DataLoader(Worker(None), num_workers=workers)))) is None


def test_data_errors_of_a_worker_keep_their_sentence():
    text = (
        'Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        f'  File "{errors.__file__}", line LINE, in f\n    raise x\n'
        'florence_mm.errors.DataError: a.jsonl, line 3: no image\n'
    )
    lines = open(errors.__file__).read().split('\n')  # noqa: PTH123, SIM115
    deliberate = next(i for i, line in enumerate(lines, 1) if line.strip().startswith('raise '))
    assert user_sentence(DataError(text.replace('LINE', str(deliberate)))) == 'a.jsonl, line 3: no image'
    assert user_sentence(DataError(text.replace('LINE', '1'))) is None


def test_exit_status(capsys, monkeypatch):
    with pytest.raises(SystemExit) as status, one_sentence_errors():
        raise UsageError('do this')
    assert status.value.code == 2
    assert capsys.readouterr().err == 'error: do this\n'
    with pytest.raises(ZeroDivisionError), one_sentence_errors():
        1 / 0  # noqa: B018
    monkeypatch.setenv('FLORENCE_MM_TRACEBACK', '1')
    with pytest.raises(UsageError), one_sentence_errors():
        raise UsageError('do this')


@pytest.mark.parametrize('closed', [True, False])
def test_a_reader_that_has_gone_is_no_error(closed):
    code = f"""
import os, sys
from florence_mm.errors import one_sentence_errors
reading, writing = os.pipe()
os.dup2(writing, 1)
if {closed}:
    os.close(reading)
with one_sentence_errors():
    for _ in range(9):
        print('x' * 9999 if {closed} else 'x')
    if not {closed}:
        raise BrokenPipeError(32, 'of a worker')
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    if closed:
        assert (run.returncode, run.stderr) == (0, '')
    else:
        assert run.returncode == 1 and 'of a worker' in run.stderr
