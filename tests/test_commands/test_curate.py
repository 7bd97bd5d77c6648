import json

import pytest
from raw_pairs import good, write_tar

from florence_mm.commands import main
from florence_mm.formats.shards import read_set


@pytest.fixture
def config(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [*good(1, 'a photo of two dogs'), *good(2), ('3.txt', b'no picture')])
    path = tmp_path / 'config.py'
    lines = [
        f"inputs = [dict(kind='tars', path={str(tmp_path / 'raw')!r})]",
        f'work = {str(tmp_path / "work")!r}',
        f'out = {str(tmp_path / "out")!r}',
        "tokenizer = dict(type='florence_mm.CLIPTokenizer')",
    ]
    path.write_text('\n'.join(lines))
    return path


def test_the_command_curates_and_prints_what_became_of_the_pairs(config, tmp_path, capsys):
    assert main.main(['curate', str(config), '--cfg-options', 'stage_c.shards=2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f'2 of 3 pairs kept, in 2 shards in {tmp_path / "out"}' in lines
    assert [line.split() for line in lines if line.startswith('  ')] == [['kept', '2'], ['no_image', '1']]
    assert read_set(tmp_path / 'out').samples.tolist() == [1, 1]
    report = json.loads((tmp_path / 'out/report/report.json').read_text())
    assert 'token' in json.dumps(report)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--cfg-options', 'stage_a.min_sides=3'], "stage_a has no key 'min_sides'; did you mean 'min_side'?"),
        (['--cfg-options', 'stage_b.min_score=0.3'], 'stage_b.min_score needs a model'),
        (['--out', 'RAW'], 'holds 0.tar, which curation did not write'),
    ],
)
def test_what_cannot_be_done_is_one_sentence(config, tmp_path, capsys, arguments, sentence):
    given = [str(tmp_path / 'raw') if one == 'RAW' else one for one in arguments]
    with pytest.raises(SystemExit) as end:
        main.main(['curate', str(config), *given])
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and sentence in error and len(error.splitlines()) == 1
