import json
import sys
from types import SimpleNamespace

import pytest
from raw_pairs import picture

from florence_mm.commands import main
from florence_mm.curation.annotation_items import Item

BOX = (0.25, 0.25, 0.75, 0.75)


class Finder:
    name, tasks = 'finder', ('detection',)

    def __init__(self, source, score=0.9):
        self.source, self.score = source, score

    def __call__(self, images, known):
        return [[Item('detection', 'dog', BOX, self.score)] for _ in images]


class Trainer:
    name = 'trainer'

    def __init__(self, score):
        self.score = score

    def __call__(self, data, folder):
        return Finder('model', self.score)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'own_models', SimpleNamespace(Finder=Finder, Trainer=Trainer))
    (tmp_path / 'pictures').mkdir()
    for number in range(2):
        (tmp_path / f'pictures/{number}.jpg').write_bytes(picture(number))
    path = tmp_path / 'annotate.py'
    path.write_text(
        f"pictures = dict(kind='folder', path={str(tmp_path / 'pictures')!r})\n"
        f'out = {str(tmp_path / "out")!r}\n'
        "specialists = [dict(kind='own_models:Finder', source='finder')]\n"
        "trainer = dict(kind='own_models:Trainer', score=0.5)\n"
    )
    return path


def run(config, *arguments):
    return main.main(['annotate', str(config), *arguments])


def test_the_command_writes_task_files_and_prints_what_became_of_the_annotations(config, tmp_path, capsys):
    assert run(config, '--rounds', '1') == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [['round', '0:', '2', 'of', '2', 'annotations', 'kept'], ['region', '2', 'of', '2']]
    assert ['round', '1:', '2', 'of', '4', 'annotations', 'kept'] in lines and ['merged', '2'] in lines
    rows = [json.loads(line) for line in (tmp_path / 'out/annotations.jsonl').read_text().splitlines()]
    assert rows == [
        {
            'image': f'{number}.jpg',
            'task': 'detection',
            'regions': [{'text': 'dog', 'boxes': [list(BOX)], 'score': 0.95}],
        }
        for number in range(2)
    ]
    for name in (
        'report.md',
        'report.json',
        'histograms.png',
        'centres.png',
        'examples_kept.png',
        'examples_merged.png',
    ):
        assert (tmp_path / 'out/round1/report' / name).is_file()


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--cfg-options', 'filter.min_score=2'], 'filter.min_score=2 must be from 0 to 1'),
        (['--cfg-options', 'filter.max_objects=3'], 'filter.max_objects needs a parser'),
        (['--rounds', '-1'], 'refine.rounds=-1 must be a whole number from 0'),
        (['--cfg-options', 'filter.min_score=0.95'], 'no annotation of 2 is kept in round 0 (low_score: 2)'),
        (['--cfg-options', 'filter.min_scor=1'], "did you mean 'min_score'"),
    ],
)
def test_mistakes_end_in_a_sentence(config, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        run(config, *arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and says in error and error.count('\n') == 1


def test_a_config_without_sources_is_refused(config, capsys):
    config.write_text('\n'.join(config.read_text().splitlines()[:2]))
    with pytest.raises(SystemExit):
        run(config)
    assert 'the config has no specialists, and pictures of a folder have no annotations; add' in capsys.readouterr().err
