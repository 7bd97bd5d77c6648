import json

import pytest
from raw_pairs import good, picture, write_tar

from florence_mm.commands import main


class Words:
    """A captioner and filter in one: writes one text, and finds long texts alike to any picture."""

    def __init__(self, model, checkpoint, device):
        self.name = f'{model} {checkpoint} {device}'

    def __call__(self, images, *asked):
        import numpy as np

        if len(asked) == 2 and isinstance(asked[1], float):
            return [['a drawn text' for _ in seeds] for seeds in asked[0]]
        texts, pairs = asked
        return np.array([min(len(texts[text]) / 20, 1.0) for _, text in pairs])


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    for name in ('ModelCaptioner', 'ModelMatcher'):
        monkeypatch.setattr(f'florence_mm.apis.capfilt.{name}', Words)
    (tmp_path / 'raw').mkdir()
    for number, text in enumerate(('a text of some length', 'short')):
        (tmp_path / f'raw/{number}.jpg').write_bytes(picture(number))
        (tmp_path / f'raw/{number}.txt').write_text(text)
    rows = [{'image': f'raw/{number}.jpg', 'text': 'a text from a list'[: 18 - 10 * number]} for number in range(2)]
    (tmp_path / 'pairs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    write_tar(tmp_path / 'tars/0.tar', good(0))
    return tmp_path


def run(folder, source, *arguments):
    models = ['--captioner', 'a', '--filter', 'b', '--device', 'cpu']
    return main.main(['capfilt', str(folder / source), *models, '--out', str(folder / 'out'), *arguments])


@pytest.mark.parametrize('source', ['pairs.jsonl', 'raw'])
def test_the_command_writes_a_manifest_and_prints_what_became_of_the_texts(pairs, capsys, source):
    assert run(pairs, source, '--threshold', '0.6') == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ['3', 'of', '4', 'texts', 'kept'],
        ['web', '1', 'of', '2'],
        ['low_score', '1'],
        ['synthetic', '2', 'of', '2'],
    ]
    kept = [json.loads(line) for line in (pairs / 'out/manifest.jsonl').read_text().splitlines()]
    assert [row['source'] for row in kept] == ['web', 'synthetic', 'synthetic']
    assert [row['image'].removeprefix('raw/') for row in kept] == ['0.jpg', '0.jpg', '1.jpg']
    report = pairs / 'out/report'
    assert sorted(path.name for path in report.iterdir()) == [
        'examples.png',
        'histograms.png',
        'report.json',
        'report.md',
    ]
    assert '| web | low_score | 1 |' in (report / 'report.md').read_text()


def test_tars_become_shards(pairs, capsys):
    assert run(pairs, 'tars', '--shards') == 0
    assert f'shards: {pairs / "out/shards"}' in capsys.readouterr().out.splitlines()
    assert (pairs / 'out/shards/index.json').is_file() and not (pairs / 'out/manifest.jsonl').exists()


@pytest.mark.parametrize(
    ('source', 'arguments', 'sentence'),
    [
        ('pairs.jsonl', ['--threshold', '1.5'], 'threshold=1.5 must be a probability, from 0 to 1'),
        (
            'pairs.jsonl',
            ['--threshold', '1'],
            'no text of 4 is kept at threshold 1.0; lower it',
        ),
        ('pairs.jsonl', ['--out', 'HERE/pairs.jsonl'], 'is a file; name a folder to write to'),
        ('pairs.jsonl', ['--out', 'HERE'], 'which curation did not write; name another folder'),
        ('pairs.jsonl', ['--prefix', '/nowhere'], '(no_image: 2); correct the paths in it, or say with --prefix'),
        ('tars', [], 'lie in tars, which a manifest cannot name; ask for shards with --shards'),
        ('none.jsonl', [], 'none.jsonl; name a manifest, a folder of pictures and texts, or tars'),
    ],
)
def test_what_cannot_be_done_is_one_sentence(pairs, capsys, source, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        run(pairs, source, *(one.replace('HERE', str(pairs)) for one in arguments))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and sentence in error, error
