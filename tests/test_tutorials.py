"""Tutorials run: their files are written, their Python and all their commands are run, in the page's order."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from florence_mm import apis
from florence_mm.commands import main
from florence_mm.corpora.digits import write_digits
from florence_mm.models.checkpoints.publishing import publish
from florence_mm.smoke.detection import write_annotations

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / 'docs/tutorials').glob('*.md') if path.name != 'README.md')
DIGITS = 'unicl_coswin-micro_1xb64-22e_digits'
READER, WRITER = 'meter_coswin-micro_2xb64-6e_large-digit-vqa', 'meter_coswin-micro_caption_2xb16-4e_large-digits'
COLOURS = {'red_car': (0, 0, 200), 'blue_car': (200, 0, 0), 'green_bus': (0, 200, 0)}


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.randint(0, 50, (40, 48, 3))
    cv2.imwrite(str(path), (noise + colour).astype(np.uint8))


def prepare(name):
    """What the page takes for granted."""
    for number in range(8):
        for label, colour in COLOURS.items():
            if name == 'my_classes':
                picture(Path('photos', 'val' if number > 5 else 'train', label, f'{number}.png'), colour)
    if name == 'my_data':
        rows = [f'{i}.png,a {label.replace("_", " ")},{label[-3:]}' for i, label in enumerate([*COLOURS] * 3)]
        for i, label in enumerate([*COLOURS] * 3):
            picture(Path('shop', f'{i}.png'), COLOURS[label])
        Path('shop/items.csv').write_text('\n'.join(['file,title,class', *rows]))
    if name in ('classify_photos', 'search_folder', 'caption_photos'):
        for file in ('0014_four.png', '000000.png', '1.png'):
            picture(Path('photos', file), COLOURS['red_car'])
    if name == 'my_objects':
        Path('objects').mkdir()
        write_annotations(Path('objects'), 2, ['red', 'green', 'blue'], 3)


def run(line):
    """Run a command of a page in this process."""
    words = shlex.split(line)
    if words[0] == 'florence-mm':
        assert main.main(words[1:]) == 0
        return
    assert words[0] == 'python', line
    script, sys.argv = str(ROOT / words[1]), [words[1], *words[2:]]
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as end:
        assert not end.code, line


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_tutorial(page, in_child, tmp_path, monkeypatch, quickstart, home):
    text = page.read_text()
    blocks = re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    files = {block.split('\n')[0].removeprefix('# '): block for block in blocks if re.match(r'# \w+\.py\n', block)}
    commands = re.findall(r'^    ((?:florence-mm|python) .*)$', text, re.MULTILINE)
    assert commands or files
    monkeypatch.setenv('FLORENCE_MM_HOME', str(home))
    monkeypatch.setenv('FLORENCE_MM_MODEL', DIGITS)
    monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(quickstart, tmp_path / 'work_dirs/quickstart')
    write_digits(tmp_path / 'data/digits')
    prepare(page.stem)
    for name, block in files.items():
        (tmp_path / name).write_text(block)

    def work():
        for block in blocks:
            if block not in files.values():
                exec(compile(block, page.name, 'exec'), {})
        for line in commands:
            # pages name the model that their commands take, or a public one, which would be downloaded
            run(line.replace('clip_vit-b-32_openai', DIGITS))

    assert in_child(work) == 0


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory):
    """A work folder of the quickstart with an untrained checkpoint."""
    import torch
    from mmengine.registry import DefaultScope

    from florence_mm.config.load import load_config
    from florence_mm.registry import MODELS

    folder = tmp_path_factory.mktemp('quickstart')
    cfg = load_config(ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py')
    with DefaultScope.overwrite_default_scope('florence_mm'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    torch.save({'state_dict': model.state_dict()}, folder / 'epoch_22.pth')
    return folder


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A home with the models that the pages name, untrained."""
    import torch

    from florence_mm.config.load import load_config
    from florence_mm.config.metafiles import model_entry

    folder = tmp_path_factory.mktemp('home')
    answers = ['yes', 'no', '2']
    for name in (DIGITS, READER, WRITER):
        cfg = load_config(model_entry(name).config)
        if name == READER:
            cfg.model.heads.vqa.answers = answers
        cfg.model.init_cfg = None
        model = apis.init_model(cfg, device='cpu').model
        meta = {'dataset_meta': {'answers': answers}} if name == READER else {}
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'model.pth')
        publish(folder / 'model.pth', folder / f'models/{name}.safetensors')
    return folder
