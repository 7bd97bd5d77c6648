"""The command that compares families, by toy runs and pictures."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_families import GIT, cell, write_run

from florence_mm.errors import UsageError
from florence_mm.protocols import family_runs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('compare_families', ROOT / 'tools/compare_families.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder to work in, with two pictures, their captions, and questions about them."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    for name in ('a.png', 'b.png'):
        Image.new('RGB', (70, 64), 'red').save(f'photos/{name}')
    Path('mine.jsonl').write_text('{"image": "a.png", "text": "a two"}\n{"image": "b.png", "text": "a six"}\n')
    Path('asked.jsonl').write_text('{"image": "a.png", "question": "how many?", "answer": "two"}\n')
    return tmp_path


def test_the_command_writes_table_numbers_and_picture(tool, fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(Path('work_dirs') / GIT, 'epoch_4.pth')
    monkeypatch.setattr('sys.argv', ['compare_families.py', '--only', 'git', 'vilt', '--tasks', 'captions'])
    assert tool.main() == 0
    out = capsys.readouterr().out
    assert '[1/1] GIT, captions' in out and '| GIT | 3.000 | 0.00 | 26 | 0 |' in out
    folder = Path('work_dirs/families')
    assert (folder / 'comparison.md').read_text() in out
    assert json.loads((folder / 'comparison.json').read_text())['git']['row']['training, s'] == 26.0
    assert (folder / 'comparison.png').stat().st_size > 5000


def test_a_failed_test_is_told_and_the_next_begins(tool, tmp_path):
    def run(name, task, weights):
        if name == 'git/captions':
            raise UsageError('a.pth is\ngone')
        return cell(0.5, vqa=1.0)

    todo = tool.chosen_tests(['git', 'vilt'], ('captions', 'vqa'), {})
    assert todo == [('git', 'captions'), ('git', 'vqa'), ('vilt', 'vqa')]
    results = tool.run_all(SimpleNamespace(run=run), ['git', 'vilt'], todo, {})
    assert results['git'] == {'captions': 'a.pth is gone', 'vqa': cell(0.5, vqa=1.0)}
    assert results['vilt'] == {'vqa': cell(0.5, vqa=1.0)}


def test_weights_that_do_not_fit_are_told_among_others(tool, photos, monkeypatch, capsys):
    def in_this_process(work, cfg, threads, *args):
        if 'git' in cfg.work_dir:
            return work(cfg, threads, *args)
        return {'caption/CIDEr-D': 3.0, 'process/parameters': 7.0, 'process/trained': 4.0, 'process/memory': 1024.0}

    monkeypatch.setattr(family_runs, 'in_own_process', in_this_process)
    torch.save({'state_dict': {'a': torch.zeros(1)}}, 'wrong.pth')
    torch.save({'state_dict': {'a': torch.zeros(1)}}, 'mine.pth')
    arguments = ['--only', 'git', 'simvlm', '--tasks', 'captions', '--captions', 'mine.jsonl', '--images', 'photos']
    weights = ['--weights', 'git:captions=wrong.pth', 'simvlm:captions=mine.pth']
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments, *weights, '--threads', '1'])
    assert tool.main() == 1
    out = capsys.readouterr().out
    assert '\n- GIT, captions: no weight in wrong.pth belongs to this model' in out
    assert '| GIT | – |' in out and '| SimVLM | 3.000 | 0.00 | – | 0 |' in out


@pytest.mark.parametrize(
    ('file', 'line', 'sentence'),
    [
        ('mine.jsonl', '{"image": "b.png", "text": 3}', 'mine.jsonl, line 3: '),
        (
            'mine.jsonl',
            '{"image": "c.png", "text": "a"}',
            'line 3: there is no picture photos/c.png; correct',
        ),
        ('mine.jsonl', '{"image": "a.png"', 'mine.jsonl, line 3'),
        ('asked.jsonl', '{"image": "b.png", "answer": "two"}', 'asked.jsonl, line 2: the question must be a string'),
        (
            'asked.jsonl',
            '{"image": "c.png", "question": "q", "answer": "a"}',
            'line 2: there is no picture photos/c.png',
        ),
    ],
)
@pytest.mark.parametrize('split', ['', 'train-'])
def test_a_bad_row_is_told_before_anything_is_trained(
    tool, fake, photos, monkeypatch, capsys, file, line, sentence, split
):
    with Path(file).open('a') as out:
        out.write(line + '\n')
    arguments = [f'--{split}captions', 'mine.jsonl', f'--{split}questions', 'asked.jsonl', f'--{split}images', 'photos']
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2 and not fake
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--weights', 'git=a.pth'], '--weights git=a.pth has another form than FAMILY:TASK=FILE; write'),
        (['--weights', 'gitt:vqa=a.pth'], "names no family; did you mean 'git'"),
        (['--weights', 'blip2:vqa=a.pth'], 'BLIP-2 has no config for vqa, only for captions, matching'),
        (['--weights', 'git:vqa=none.pth'], 'none.pth'),
        (['--captions', 'a.jsonl'], 'captions or questions and their pictures belong together; give --images too'),
        (['--train-images', '.'], 'give --train-captions or --train-questions too'),
        (['--captions', 'a.jsonl', '--images', '.'], '--captions a.jsonl is no file; correct the path'),
        (['--regions', '.'], '--regions belong to captions or questions; give --captions or --questions'),
        (['--only', 'gitt'], "argument --only: invalid choice: 'gitt' (choose from"),
        (
            ['--only', 'vilt', '--tasks', 'captions'],
            'left for --tasks captions: ViLT has vqa, matching; choose',
        ),
        (
            ['--only', 'git', '--weights', 'vilt:vqa=w.pth'],
            '--weights vilt:vqa is of a test that --only',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tool, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    Path('w.pth').touch()
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2 and sentence in capsys.readouterr().err
