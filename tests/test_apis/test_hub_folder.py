"""Models as folders in the form of the hub: written, read back, uploaded by a fake hub, and damaged."""

import json

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors import safe_open

from florence_mm import from_pretrained
from florence_mm.apis import get_model, init_model
from florence_mm.errors import DataError, UsageError

DIGITS = 'unicl_coswin-micro_1xb64-36e_digits'
SCENES = 'atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes'


@pytest.fixture(scope='module')
def digits():
    torch.manual_seed(0)
    return get_model(DIGITS, pretrained=False, device='cpu')


@pytest.fixture
def folder(digits, tmp_path):
    digits.class_names = ['one', 'two']
    return digits.save_pretrained(tmp_path / 'new/model')


def test_the_files_of_a_folder(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {'config.json', 'model.safetensors', 'preprocessor_config.json', 'README.md'}
    assert json.loads((folder / 'config.json').read_text())['model']['type'] == 'florence_mm.UniCL'
    steps = json.loads((folder / 'preprocessor_config.json').read_text())['pipeline']
    resizing = ['mmpretrain.ResizeEdge', 'mmpretrain.CenterCrop']
    assert [step['type'] for step in steps] == ['florence_mm.LoadImage', *resizing, 'florence_mm.PackImageText']
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: florence_mm\n') and 'zero-shot-image-classification' in card
    assert f'# {DIGITS}' in card and 'Top 1 Accuracy 99.3' in card
    with safe_open(folder / 'model.safetensors', 'pt') as weights:
        assert json.loads(weights.metadata()['dataset_meta'])['classes'] == ['one', 'two']


def test_the_same_model_comes_back(digits, folder):
    again = from_pretrained(folder, device='cpu')
    assert again.name == DIGITS and again.class_names == ['one', 'two']
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    scores = []
    for loaded in (digits, again):
        loaded.model.set_classes(['one', 'two'])
        scores.append(loaded.model.test_step(loaded.preprocess(image))[0].pred_score)
    assert torch.equal(*scores)


def test_a_detector_with_tuples_and_an_own_card(tmp_path):
    torch.manual_seed(0)
    loaded = get_model(SCENES, pretrained=False, device='cpu')
    (tmp_path / 'README.md').write_text('mine')
    again = from_pretrained(loaded.save_pretrained(tmp_path), device='cpu')
    assert (tmp_path / 'README.md').read_text() == 'mine'
    image = np.full((64, 80, 3), 90, dtype=np.uint8)
    found = [one.model.test_step(one.preprocess(image))[0].pred_instances for one in (loaded, again)]
    assert torch.equal(found[0].scores, found[1].scores) and torch.equal(found[0].bboxes, found[1].bboxes)
    steps = again.cfg.test_dataloader.dataset.pipeline
    assert steps == loaded.cfg.test_dataloader.dataset.pipeline  # tuples are tuples again


def test_a_config_that_json_cannot_hold(tmp_path):
    (tmp_path / 'lenet.py').write_text("model = dict(type='mmpretrain.LeNet5', num_classes=3)")
    loaded = init_model(tmp_path / 'lenet.py', device='cpu')
    assert from_pretrained(loaded.save_pretrained(tmp_path / 'a'), device='cpu').pipeline is None
    loaded.cfg.model['num_classes'] = np.arange(3)
    with pytest.raises(UsageError, match='config.json: model: num_classes is array.*which a JSON file cannot hold'):
        loaded.save_pretrained(tmp_path / 'b')
    assert not (tmp_path / 'b').exists()


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('config.json', None, 'config.json does not exist; give a folder that save_pretrained wrote'),
        ('config.json', '{"model": ', 'config.json is not JSON'),
        ('config.json', '[1]', 'config.json holds a list, not settings'),
        ('config.json', '{}', 'config.json has no model'),
        ('config.json', '\xff\xfe', 'config.json is not JSON'),
        ('config.json', '[' * 100_000, 'config.json is not JSON'),
        ('model.safetensors', None, 'model.safetensors does not exist'),
        ('model.safetensors', 'cut', 'model.safetensors .*is not a complete safetensors file'),
        ('preprocessor_config.json', 'null', 'holds a NoneType'),
    ],
)
def test_damaged_folders(folder, name, content, says):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content.encode('latin-1'))
    with pytest.raises((DataError, ValueError), match=says):
        from_pretrained(folder, device='cpu')


@pytest.mark.parametrize('name', ['nothing', './nothing/here', '/nothing', 'a/b/c'])
def test_neither_folder_nor_repository(name):
    with pytest.raises(UsageError, match='is neither a folder nor OWNER/REPO'):
        from_pretrained(name)


def test_from_a_repository(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        'florence_mm.apis.hub_folder.hub_file',
        lambda url: asked.append(url) or folder / url.split('/')[-1].split('@')[0],
    )
    assert from_pretrained('someone/digits', device='cpu', revision='v2').class_names == ['one', 'two']
    assert 'hf://someone/digits/model.safetensors@v2' in asked and len(asked) == 3


class FakeHub:
    """Notes what it is handed, as HfApi is."""

    calls: list = []
    error: Exception | None = None

    def __init__(self, token=None):
        self.calls.append(('token', token))

    def create_repo(self, repo_id, private, exist_ok):
        if self.error:
            raise self.error
        self.calls.append(('create', repo_id, private, exist_ok))
        return type('Url', (), {'repo_id': repo_id})

    def upload_folder(self, repo_id, folder_path, commit_message):
        again = from_pretrained(folder_path, device='cpu')
        self.calls.append(('upload', repo_id, commit_message, again.name))
        return 'https://localhost/commit/1'


def test_what_an_upload_is_handed(digits, monkeypatch):
    for name in ('FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(FakeHub, 'calls', [])
    monkeypatch.setattr(huggingface_hub, 'HfApi', FakeHub)
    url = digits.push_to_hub('someone/digits', private=True, commit_message='first', token='t')
    assert url == 'https://localhost/commit/1'
    assert FakeHub.calls == [
        ('token', 't'),
        ('create', 'someone/digits', True, True),
        ('upload', 'someone/digits', 'first', DIGITS),
    ]
    monkeypatch.setattr(FakeHub, 'error', huggingface_hub.errors.HFValidationError('a name\nwith spaces'))
    with pytest.raises(UsageError, match=r'a b cannot be written on the hub \(a name\); sign in'):
        digits.push_to_hub('a b')
    monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
    with pytest.raises(UsageError, match='cannot be written while FLORENCE_MM_OFFLINE'):
        digits.push_to_hub('someone/digits')
