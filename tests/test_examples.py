"""Examples run: those in docstrings, and the Python of README, docs and projects.

``>>>`` in docstrings are doctests. Other examples are code, which is run with stand-ins for what it takes for granted,
or configs, whose types and keys are checked; a model from which nothing is left out is built.
"""

import ast
import doctest
import importlib
import re
import socket
import textwrap
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

import florence_mm
from florence_mm import apis
from florence_mm.config.check import check_config
from florence_mm.config.keys import RUNNER_KEYS
from florence_mm.config.load import load_config
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints.publishing import publish
from florence_mm.registry import MODELS, TRANSFORMS

PACKAGE = Path(florence_mm.__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(PACKAGE.rglob('*.py'))
PAGES = [ROOT / 'README.md', *(p for folder in ('docs', 'projects') for p in sorted((ROOT / folder).rglob('*.md')))]
# test_tutorials.py runs these, in order
PAGES = [page for page in PAGES if page.parent.name != 'tutorials']
INFERENCERS = [name for name in apis.__all__ if name.endswith('Inferencer')]


def examples():
    """Code blocks of pages and of docstrings, each with its place."""
    for page in PAGES:
        for match in re.finditer(r'^```python\n(.*?)^```', page.read_text(), flags=re.DOTALL | re.MULTILINE):
            yield page, match.start(), match[1]
    for source in SOURCES:
        for match in re.finditer(r'^.*::\n\n((?: +.*\n|\n)+)', source.read_text(), flags=re.MULTILINE):
            # up to the first line that is indented less
            block = match[1].splitlines(keepends=True)
            margin = len(block[0]) - len(block[0].lstrip())
            end = next((i for i, line in enumerate(block) if line.strip() and not line.startswith(' ' * margin)), None)
            yield source, match.start(), textwrap.dedent(''.join(block[:end]))


def without_omissions(text):
    """An example whose dicts do not say, by three dots, that something is left out."""
    return re.sub(r',\s*\.\.\.(?=\s*[,)])', '', text)


def is_code(text):
    """Whether an example calls or imports anything but what belongs into a config."""
    nodes = list(ast.walk(ast.parse(text)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    known = {'dict', *(alias.name for node in imports for alias in node.names)}
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    others = [node for node in imports if not node.module.startswith('florence_mm.config.')]
    return bool(others or calls - known or any(isinstance(node, ast.Import) for node in nodes))


DIGITS = 'unicl_coswin-micro_1xb64-22e_digits'
CODE, CONFIGS, FILES = [], [], {}
for path, start, text in examples():
    if re.match(r'# [\w/]+\.py\n', text):
        FILES[text.split('\n')[0].removeprefix('# ')] = text
    line = path.read_text().count('\n', 0, start) + 1
    found = pytest.param(text, id=f'{path.relative_to(ROOT).as_posix()}:{line}')
    (CODE if is_code(without_omissions(text)) else CONFIGS).append(found)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty working folder, no network, and registries that forget what an example registers."""

    def refuse(*args, **kwargs):
        raise AssertionError('an example asks for the network')

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    yield
    for registry in (MODELS, TRANSFORMS):
        for name, kept in list(registry._module_dict.items()):
            # modules of the package that an example imported stay, as they are not imported again
            if not kept.__module__.startswith('florence_mm'):
                del registry._module_dict[name]


@pytest.mark.parametrize('source', [path for path in SOURCES if '>>> ' in path.read_text()], ids=lambda path: path.stem)
def test_docstrings(source):
    name = '.'.join(source.relative_to(PACKAGE.parent).with_suffix('').parts)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def publish_digits(folder, monkeypatch):
    """Publish the quickstart's model with random weights, and write an image."""
    monkeypatch.setenv('FLORENCE_MM_HOME', str(folder))
    loaded = apis.get_model(DIGITS, pretrained=False)
    torch.save(loaded.model.state_dict(), 'epoch_22.pth')
    publish('epoch_22.pth', folder / f'models/{DIGITS}.safetensors')
    Image.new('RGB', (32, 32)).save('seven.png')


@pytest.mark.parametrize('text', CODE)
def test_code(text, tmp_path, monkeypatch):
    monkeypatch.setattr('florence_mm.smoke.stand_ins.GENERATORS', {})
    if DIGITS in text:
        publish_digits(tmp_path, monkeypatch)
    # public weights are downloaded
    text = re.sub(
        r"get_model\('([^']+)'\)", lambda m: m[0] if m[1] == DIGITS else f'{m[0][:-1]}, pretrained=False)', text
    )
    Image.new('RGB', (32, 32)).save('photo.jpg')
    names = {name: create_autospec(getattr(apis, name)) for name in INFERENCERS}
    for name, stand_in in names.items():
        # calls are held against the signatures
        monkeypatch.setattr(apis, name, stand_in)
    if 'data/mine' in text:
        Path('data/mine').mkdir(parents=True)
        Image.new('RGB', (32, 32)).save('data/mine/seven.png')
        Path('data/mine/test.jsonl').write_text('{"image": "seven.png", "text": "the digit seven"}\n')
    image_encoder = CoSwin('micro', img_size=32)
    torch.save(image_encoder.state_dict(), 'swin_tiny_patch4_window7_224.pth')
    model = dict(
        type='florence_mm.UniCL',
        image_encoder=image_encoder,
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='micro'),
        tokenizer=dict(type='florence_mm.CLIPTokenizer'),
    )
    names |= dict(
        Path=Path,
        array=None,
        cfg=Config(dict(model=model)),
        checkpoint='checkpoint.pth',
        config='config.py',
        image=torch.zeros(3, 32, 32, dtype=torch.uint8),
        model=CoSwin('micro', img_size=32),
    )
    exec(compile(text, 'example', 'exec'), names)


@pytest.mark.parametrize('text', CONFIGS)
def test_configs(text, tmp_path, monkeypatch):
    # packages of extras
    monkeypatch.setattr('florence_mm.config.check._NEEDS', {})
    for name in re.findall(r'custom_imports.*?(\w[\w.]*\.\w+)', text):
        path = f'{name.replace(".", "/")}.py'
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(FILES[path])
        monkeypatch.syspath_prepend(tmp_path)
    complete = '...' not in text and not re.search(r'data/((ro)?b[ea]rt\S*-base|opt-\S+)', text)
    text = without_omissions(text)
    tree = ast.parse(text)
    if all(isinstance(node, ast.Expr) for node in tree.body):
        text = f'train_pipeline = [\n{text}]'  # steps alone
    assigned = [target.id for node in ast.parse(text).body if isinstance(node, ast.Assign) for target in node.targets]
    assert assigned or '_base_' in text
    file = tmp_path / 'config.py'
    file.write_text(text.replace("'../_base_/", "'florence_mm::_base_/"))
    cfg = load_config(file)
    cfg.setdefault('default_scope', 'florence_mm')
    check_config(cfg, whole=False)
    for name in set(assigned) - RUNNER_KEYS - {'_base_'}:
        value = cfg[name]
        # arguments in the middle of a call end with a comma
        check_config(in_its_place(name, value[0] if isinstance(value, tuple) else value), whole=False)
    if 'model' in assigned and complete:
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            MODELS.build(cfg.model)


def in_its_place(name, value):
    """A config with a part of one where it belongs."""
    if name == 'dataset':
        part = dict(train_dataloader=dict(dataset=value))
    elif name.endswith('_pipeline'):
        part = dict(train_dataloader=dict(dataset=dict(type='ImageTextManifest', pipeline=value)))
    elif name in ('optimizer', 'paramwise_cfg'):
        part = dict(optim_wrapper={'optimizer': dict(type='AdamW'), name: value})
    else:
        part = dict(model={name: value})
    return dict(default_scope='florence_mm', **part)


def test_examples_are_found():
    places = [param.id for param in (*CODE, *CONFIGS)]
    assert len(CODE) >= 10 and len(CONFIGS) >= 30
    for start in ('README.md', 'docs/config.md', 'docs/unicl.md', 'florence_mm/engine/optim/muon.py'):
        assert any(place.startswith(start) for place in places), start


@pytest.mark.parametrize(
    'text',
    [
        "model = dict(type='florence_mm.UniCL', image_encodre=1)",
        "itm=dict(type='FusionITMHaed')",
        "dict(type='mmcv.Resize', scal=8),\ndict(type='mmcv.RandomFlip', prob=1),\n",
        "optimizer=dict(type='AdamW', lrr=1),\n",
        "_base_ = '../_base_/datasets/digits.py'\n"
        'from florence_mm.config.pick import remove_step\n'
        "train_pipeline = remove_step(_base_.train_pipeline, 'Resize')",
    ],
)
def test_a_wrong_config_is_noticed(text, tmp_path, monkeypatch):
    with pytest.raises(florence_mm.errors.UsageError):
        test_configs(text, tmp_path, monkeypatch)
