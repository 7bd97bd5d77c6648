"""classify, search, ask, caption and detect on pictures whose answers are known, from arguments to files and lines."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from florence_mm.commands import main as command_line

ROOT = Path(__file__).parents[2]
images, asking = (
    runpy.run_path(str(ROOT / f'tests/test_apis/test_{name}_inferencer.py')) for name in ('image', 'multimodal')
)
picture, write = images['picture'], images['write']
COLOURS = {'blue': (0, 0, 200), 'green': (0, 200, 0), 'red': (200, 0, 0)}


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    """Run florence-mm in this process and in a folder with pictures; returns exit status, output and errors."""
    made = {'towers.py': images['config'], 'meter.py': asking['config']}

    def load(path, options):
        return Config(made[Path(path).name]().to_dict(), filename=str(path))

    for name in made:
        (tmp_path / name).touch()
    for name, colour in COLOURS.items():
        write(tmp_path / f'photos/{name}.png', picture(colour))
    torch.save({'state_dict': images['two_towers']().state_dict(), 'meta': {}}, tmp_path / 'towers.pth')
    meter = asking['tiny_meter'](asking['HEADS']).state_dict()
    torch.save({'state_dict': meter, 'meta': {'dataset_meta': {'answers': asking['ANSWERS']}}}, tmp_path / 'meter.pth')
    monkeypatch.setattr('florence_mm.config.load.load_config', load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('FLORENCE_MM_HOME', str(tmp_path / 'home'))

    def run(*arguments, model=None):
        chosen = ['--model', f'{model}.py', '--checkpoint', f'{model}.pth'] if model else []
        try:
            status = command_line.main([*map(str, arguments), *chosen])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def inside(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*') if path.is_file())


def test_classify_draws_only_into_a_folder(called, tmp_path):
    before = inside('.')
    asked = 'classify', 'photos/red.png', '--classes', 'blue, red'
    best = round(images['E'] / (images['E'] + 1), 2)
    line = f'photos/red.png: red {best:.2f}, blue {1 - best:.2f}\n'
    assert called(*asked, model='towers') == (0, line, '') and inside('.') == before
    status, out, _ = called(*asked, '--out', 'c.json', '--features', 'f.npy', model='towers')
    assert (status, out) == (0, f'{line}c.json: 1 image\nf.npy: 1 image, a row each\n')
    assert inside('.') == sorted([*before, 'c.json', 'f.npy'])
    assert json.loads(Path('c.json').read_text())['images'][0]['labels'] == ['red', 'blue']
    np.testing.assert_allclose(np.load('f.npy'), [[1, 0, 0]], atol=1e-6)
    Path('photos/zebra.png').write_bytes(b'no picture')
    status, out, err = called('classify', 'photos', '--classes', 'red, green', '--out-dir', 'drawn', model='towers')
    assert status == 1 and 'zebra.png' in err
    assert out.endswith('drawn: 3 images drawn\n1 of 4 images failed\n')
    assert inside('drawn') == ['blue.png', 'classes.json', 'green.png', 'red.png']
    status, _, err = called('classify', 'photos', '--classes', 'red', '--out', 'photos/red.png', model='towers')
    assert status == 2 and 'out photos/red.png is the input photos/red.png' in err


def test_search_remembers_its_model(called):
    status, out, _ = called('search', 'index', 'photos', '--index', 'i', model='towers')
    assert (status, out) == (0, 'i: 3 added, 0 unchanged\n')
    status, out, err = called('search', 'something green', '--image', 'photos/red.png', '--index', 'i', '--top', 2)
    folder = Path('photos').absolute()
    assert (status, err) == (0, '') and out.splitlines() == [
        *('something green:', f'  1.000 {folder}/green.png', f'  0.000 {folder}/blue.png'),
        *('photos/red.png:', f'  1.000 {folder}/red.png', f'  0.000 {folder}/blue.png'),
    ]
    # a drawing among the pictures is not indexed later, a picture of that name is
    assert called('search', 'red', '--index', 'i', '--out-dir', 'photos/found')[1].endswith(
        'search.png and search.json\n'
    )
    write(Path('photos/other/search.png'), picture(COLOURS['red']))
    Path('photos/blue.png').unlink()
    assert called('search', 'index', 'photos', '--index', 'i')[1] == (
        'i: 1 added, 2 unchanged, 1 gone, 1 of earlier searches left out\n'
    )
    assert inside('i') == ['features.bin', 'index.json', 'items.jsonl']


def test_an_index_from_elsewhere_brings_no_config(called, monkeypatch):
    assert called('search', 'index', 'photos', '--index', 'i', model='towers')[0] == 0
    Path('i').rename('theirs')
    status, _, err = called('search', 'red', '--index', 'theirs')
    assert status == 2 and 'theirs was made elsewhere, with the config' in err and 'towers.py' in err
    assert called('search', 'red', '--index', 'theirs', model='towers')[0] == 0
    # nor does one that replaces an index of this machine
    Path('theirs').rename('i')
    head = json.loads(Path('i/index.json').read_text())
    Path('i/index.json').write_text(json.dumps({**head, 'config': str(Path('other.py').absolute())}))
    assert called('search', 'red', '--index', 'i')[0] == 2


def test_search_refuses_what_it_cannot_do(called):
    Path('bad.png').write_bytes(b'no picture')
    for _ in range(2):
        status, out, err = called('search', 'index', 'bad.png', '--index', 'new', model='towers')
        assert (status, out) == (2, '1 of 1 file failed\n') and 'error: the image bad.png' in err
        assert not Path('new').exists()
    assert called('search', 'index', 'photos', '--index', 'i', '--dtype', 'float16', model='towers')[0] == 0
    assert called('search', 'index', 'photos', '--index', 'i', '--dtype', 'float16')[1] == 'i: 0 added, 3 unchanged\n'
    status, _, err = called('search', 'index', 'photos', '--index', 'i', '--dtype', 'float32')
    assert (status, err) == (
        2,
        "error: the index i has float16; leave dtype='float32' out, or make a new index in another folder\n",
    )
    status, _, err = called('search', 'red', '--index', 'i', '--out-dir', 'i')
    assert (status, err) == (2, 'error: out_dir i is the folder of an index; name another one\n')


def test_ask_and_caption(called):
    write(Path('one.png'), asking['picture']())
    question = asking['QUESTIONS'][0]
    asked = 'one.png', '--out', 'a.json', '--out-dir', 'said'
    status, out, err = called('ask', *asked, '--question', question, '--match', 'a nine', '--top', 1, model='meter')
    (result,) = json.loads(Path('a.json').read_text())['images']
    (answer,) = result['answers']
    assert (status, err) == (0, '') and out.splitlines() == [
        'one.png:',
        f'  {question} {answer["answers"][0]} ({answer["scores"][0]:.2f})',
        f'  {result["matches"][0]["score"]:.2f} a nine',
        'a.json: 1 image',
        'said: 1 image',
    ]
    assert len(answer['answers']) == 1 and inside('said') == ['one.png']
    status, out, _ = called('caption', 'one.png', 'photos/red.png', '--out-dir', 'captions', model='meter')
    both = json.loads(Path('captions/answers.json').read_text())['images']
    assert status == 0 and out.splitlines() == [
        *('one.png:', f'  {both[0]["caption"]}', 'photos/red.png:', f'  {both[1]["caption"]}'),
        'captions: 2 images',
    ]
