"""Models by name with weights, preprocessing and class names: published here, downloaded, or random."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from web_server import web_server

from florence_mm.apis import DetectionInferencer, ImageInferencer, get_model, init_model
from florence_mm.apis.named import checkpoint_and_inputs, resolve_model, weights_file
from florence_mm.config.load import load_config
from florence_mm.config.metafiles import Weights, model_entry
from florence_mm.errors import DataError, UsageError
from florence_mm.models.checkpoints.publishing import find_published, publish
from florence_mm.registry import MODELS

DIGITS = 'unicl_coswin-micro_1xb64-36e_digits'
SCENES = 'atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes'
VQA = 'meter_coswin-micro_2xb64-6e_large-digit-vqa'
CLIPS = 'video_coswin-micro_2xb5-3e_clips'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Nothing is published, and nothing downloaded."""
    folder = tmp_path / 'home'
    monkeypatch.setenv('FLORENCE_MM_HOME', str(folder))
    for name in ('FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('florence_mm.apis.named.published_folders', lambda: [folder / 'models'])
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return folder


def trained(name, path, seed=0, **meta):
    """A checkpoint of a model with random weights, as training writes it."""
    torch.manual_seed(seed)
    model = get_model(name, pretrained=False, device='cpu').model
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return model


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_a_model_published_here(home, tmp_path):
    source = trained(DIGITS, tmp_path / 'a.pth', dataset_meta={'classes': ['naught', 'one']})
    with pytest.raises(UsageError, match=rf'{DIGITS} is not in .*models; .*publish_embedded.py {DIGITS}` trains it'):
        get_model(DIGITS)
    file = publish(tmp_path / 'a.pth', home / f'models/{DIGITS}.safetensors')
    assert file.name == f'{DIGITS}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.safetensors'
    loaded = get_model(DIGITS, device='cpu')
    assert same(loaded.model.state_dict(), source.state_dict())
    assert loaded.class_names == ['naught', 'one'] and loaded.name == DIGITS and not loaded.model.training
    # of two, the newer
    newer = trained(DIGITS, tmp_path / 'b.pth', seed=1)
    publish(tmp_path / 'b.pth', home / f'models/{DIGITS}.safetensors')
    assert same(init_model(DIGITS).model.state_dict(), newer.state_dict())


def test_a_published_file_that_was_damaged(home, tmp_path):
    trained(DIGITS, tmp_path / 'a.pth')
    file = publish(tmp_path / 'a.pth', home / f'models/{DIGITS}.safetensors')
    file.write_bytes(file.read_bytes()[:-1] + b'!')
    with pytest.raises(DataError, match=r'is damaged: its SHA-256 begins with .*; delete it'):
        weights_file(model_entry(DIGITS))


def test_other_files_among_the_published_ones(tmp_path):
    for name in (f'{DIGITS}.safetensors', f'{DIGITS}-12.safetensors', f'x{DIGITS}-{"0" * 8}.safetensors', 'note.txt'):
        (tmp_path / name).write_text('')
    assert find_published(DIGITS, [tmp_path / 'missing', tmp_path]) is None


def test_answers_come_with_the_weights(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where data/large_digit_questions/answers.txt is not
    answers = [f'word {number}' for number in range(27)]
    cfg = load_config(VQA)
    cfg.model.heads.vqa.answers = answers
    cfg.model.init_cfg = None
    torch.save(
        {'state_dict': MODELS.build(cfg.model).state_dict(), 'meta': {'dataset_meta': {'answers': answers}}}, 'a'
    )
    assert get_model(VQA, 'a', device='cpu').model.answer_names() == answers


def test_random_weights_and_preprocessing(home, tmp_path):
    loaded = get_model(DIGITS, pretrained=False, device='cpu')
    array = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / 'a.png')
    loaded.model.set_classes(['one', 'two'])
    one, two, three = (
        loaded.model.test_step(loaded.preprocess(image))[0].pred_score
        for image in (array, tmp_path / 'a.png', Image.fromarray(array))
    )
    assert torch.equal(one, two) and torch.equal(one, three) and one.sum() == pytest.approx(1)
    assert len(loaded.model.test_step(loaded.preprocess([array, array]))) == 2
    with pytest.raises(DataError, match='nothing.png'):
        loaded.preprocess('nothing.png')


def test_a_video_model(home, tmp_path):
    loaded = get_model(CLIPS, pretrained=False, device='cpu')
    assert loaded.class_names[:2] == ['left', 'right'] and len(loaded.class_names) == 9
    assert type(loaded.pipeline).__name__ == 'VideoPipeline'


def test_a_config_without_test_data(home, tmp_path):
    (tmp_path / 'c.py').write_text("model = dict(type='mmpretrain.LeNet5', num_classes=3)")
    loaded = init_model(tmp_path / 'c.py', device='cpu')
    assert loaded.pipeline is None and loaded.class_names is None and loaded.name == 'c'
    with pytest.raises(UsageError, match='c has no test_dataloader'):
        loaded.preprocess('a.png')


def test_weights_from_the_web(home, tmp_path, monkeypatch):
    source = trained(DIGITS, tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    with web_server() as server:
        server.files['/a.pth'] = data
        server.ways['/a.pth'] = [('cut', 1_000_000)]
        weights = Weights(server.url('/a.pth'), hashlib.sha256(data).hexdigest())
        entry = model_entry(DIGITS)
        monkeypatch.setattr(
            'florence_mm.apis.zoo.model_entry', lambda name: type(entry)(**{**vars(entry), 'weights': weights})
        )
        assert same(get_model(DIGITS, device='cpu').model.state_dict(), source.state_dict())
        assert [asked for _, asked in server.requests] == [None, 'bytes=1000000-']
        monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
        assert same(get_model(DIGITS, device='cpu').model.state_dict(), source.state_dict())
    assert [path.suffix for path in (home / 'checkpoints').glob('[!.]*.pth')] == ['.pth']


def test_weights_that_have_moved_are_told_with_their_publishers_page(home):
    entry = model_entry(DIGITS)
    with web_server() as server:
        weights = Weights(server.url('/gone.pth'), source='https://example.org/page')
        with pytest.raises(
            UsageError, match='gone.pth is answered with 404 .*; or take .* https://example.org/page and'
        ):
            weights_file(replace(entry, weights=weights))


def test_an_inferencer_by_name(home, tmp_path):
    trained(SCENES, tmp_path / 'a.pth')
    publish(tmp_path / 'a.pth', home / f'models/{SCENES}.safetensors')
    inferencer = DetectionInferencer(SCENES, device='cpu')
    (result,) = inferencer(np.zeros((64, 64, 3), dtype=np.uint8), score_thr=0.0)
    assert result['width'] == 64 and set(result['labels']) <= set(inferencer.known_classes)


def test_checkpoints_of_names(home, tmp_path):
    no_weights = 'unicl_coswin-t_8xb512-32e_in21k-yfcc14m'
    with pytest.raises(UsageError, match=f'{no_weights} has no published weights; give a checkpoint'):
        resolve_model(no_weights, None)
    assert resolve_model(no_weights, 'a.pth') == (model_entry(no_weights).config, 'a.pth')
    assert resolve_model('a.py', None) == ('a.py', None)
    with pytest.raises(UsageError, match="checkpoint '-' is for a model given by name"):
        resolve_model('a.py', '-')


def test_arguments_of_a_command_line(home, tmp_path):
    trained(DIGITS, tmp_path / 'a.pth')
    file = publish(tmp_path / 'a.pth', home / f'models/{DIGITS}.safetensors')
    for given, inputs in ((None, ['a.jpg', 'b']), ('-', ['a.jpg', 'b']), ('a.jpg', ['b'])):
        assert checkpoint_and_inputs(DIGITS, given, inputs) == (file, ['a.jpg', 'b'])
    for own in ('own.pth', 'https://localhost/own.safetensors?key=1'):
        assert checkpoint_and_inputs(DIGITS, own, ['a.jpg']) == (own, ['a.jpg'])
    assert checkpoint_and_inputs('a.py', 'own', ['a.jpg']) == ('own', ['a.jpg'])
    with pytest.raises(UsageError, match='a.py is a config, which needs a checkpoint'):
        checkpoint_and_inputs('a.py', None, ['a.jpg'])


def test_a_public_swin_by_name_names_what_its_package_does(home, tmp_path, monkeypatch):
    """From the address of its weights to the labels of a picture, as timm has them with the same weights."""
    import timm
    from timm.data import create_transform

    torch.manual_seed(0)
    peer = timm.create_model('swin_tiny_patch4_window7_224').eval()
    torch.nn.init.normal_(peer.head.fc.weight, std=0.5)
    # patch merging ends a stage in Swin's code, and begins the next in timm
    names = {f'layers.{i + 1}.downsample': f'layers.{i}.downsample' for i in range(3)} | {'head.fc.': 'head.'}
    state = {
        next((key.replace(a, b) for a, b in names.items() if key.startswith(a)), key): value
        for key, value in peer.state_dict().items()
    }
    torch.save({'model': state}, tmp_path / 'swin.pth')
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((340, 240), Image.Resampling.BICUBIC)
    picture.save(tmp_path / 'a.png')
    data = (tmp_path / 'swin.pth').read_bytes()
    entry = model_entry('swin-t_imagenet1k')
    with web_server() as server:
        server.files['/swin.pth'] = data
        weights = replace(entry.weights, url=server.url('/swin.pth'), sha256=hashlib.sha256(data).hexdigest()[:8])
        monkeypatch.setattr('florence_mm.apis.named.model_entry', lambda name: replace(entry, weights=weights))
        inferencer = ImageInferencer('swin-t_imagenet1k', device='cpu')
    (found,) = inferencer(str(tmp_path / 'a.png'), top=3)
    cut = create_transform((3, 224, 224), interpolation='bicubic', crop_pct=224 / 256)
    with torch.no_grad():
        scores, labels = peer(cut(picture)[None]).softmax(1)[0].topk(3)
    assert found['labels'] == [inferencer.known_classes[label] for label in labels]
    np.testing.assert_allclose(found['scores'], scores.numpy(), atol=2e-3)
    assert scores[0] > 0.02 and len(inferencer.known_classes) == 1000
