"""florence-mm models: the list, one entry, the file of its weights, and what it refuses."""

import hashlib

import pytest
import safetensors.torch
import torch

from florence_mm.commands.main import main
from florence_mm.config.metafiles import list_models

DIGITS = 'unicl_coswin-micro_1xb64-36e_digits'


def test_the_list(capsys):
    assert main(['models']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['name', 'task', 'parameters', 'multiply-adds', 'weights']
    assert [line.split()[0] for line in lines[1:]] == list_models()
    main(['models', 'list', '36e_digits', '--task', 'zero-shot-classification', '--pretrained'])
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:6] == [DIGITS, 'zero-shot-classification', '999.53', 'k', '5.82', 'M']


def test_one_model(capsys):
    assert main(['models', 'show', DIGITS]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'{DIGITS}\n') and 'Top 1 Accuracy 99.3' in out
    assert '5.82 M multiply-adds for one image of 32 x 32; FLOPs are twice as many' in out


def test_the_file_of_weights(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv('FLORENCE_MM_HOME', str(tmp_path))
    data = safetensors.torch.save({'a': torch.ones(1)})
    file = tmp_path / f'models/{DIGITS}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors'
    file.parent.mkdir()
    file.write_bytes(data)
    assert main(['models', 'path', DIGITS]) == 0
    assert capsys.readouterr().out == f'{file}\n'
    assert main(['models', 'download', DIGITS]) == 0
    assert capsys.readouterr().out == f'{DIGITS}: {file}\n'


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['list', 'nothing-like-it'], 'no model is like nothing-like-it'),
        (['show'], 'models show needs the name of a model'),
        (['show', DIGITS[:-1]], f'did you mean {DIGITS!r}'),
        (['show', DIGITS, '--pretrained'], '--task and --pretrained choose what models list prints'),
        (['list', '--task', 'sing'], "task 'sing' is none of"),
        (['path', 'unicl_coswin-t_8xb512-32e_in21k-yfcc14m'], 'has no published weights'),
    ],
)
def test_refusals(capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main(['models', *arguments])
    assert ended.value.code == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith('error: ') and says in errors and '\n' not in errors
