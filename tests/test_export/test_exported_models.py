"""Exported files give the answers of their models, in their runtimes, at other batches and sizes."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from running import CLASSES, CROP, RESIZE, noise, run
from small_models import CLASSIFIER, DETECTOR, TWO_TOWERS, config

from florence_mm.apis import DetectionInferencer
from florence_mm.errors import DataError, UsageError
from florence_mm.export import exporting, load_exported


@pytest.fixture(scope='module')
def towers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('towers')
    return run(config(TWO_TOWERS, RESIZE, CROP), folder / 'pair.onnx'), folder


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """An inferencer for a detector with some confidence, and the detector's file."""
    folder = tmp_path_factory.mktemp('detector')
    resize = {'type': 'mmdet.Resize', 'scale': (120, 80), 'keep_ratio': True}
    cfg = config(DETECTOR, resize, data_set='mmdet.CocoDataset', pack='mmdet.PackDetInputs')
    cfg.test_dataloader.dataset.metainfo = {'classes': ('red', 'green', 'blue')}
    torch.manual_seed(3)
    inferencer = DetectionInferencer(cfg, None, 'cpu')
    head = inferencer.model.bbox_head
    torch.nn.init.normal_(head.atss_cls.weight, std=0.4)
    torch.nn.init.normal_(head.atss_reg.weight, std=0.1)
    torch.nn.init.zeros_(head.atss_cls.bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('florence_mm.apis.loaded_model.ready_model', lambda *_: (inferencer.model, {}, 'cpu'))
        run(cfg, folder / 'detector.onnx')
    return inferencer, folder / 'detector.onnx'


def test_image_tower_gives_features_of_the_model(towers):
    loaded, folder = towers
    pictures = [noise(50, 70, 1), noise(64, 48, 2), noise(40, 40, 3)]
    features = load_exported(folder / 'pair-image.onnx')(pictures, batch_size=2)
    batch = loaded.model.data_preprocessor(loaded.preprocess(pictures))
    with torch.no_grad():
        expected = loaded.model.extract_image_feat(batch['inputs']).numpy()
    assert np.abs(features - expected).max() < 1e-5
    assert np.abs(features[0] - features[1]).max() > 1e-3  # they tell pictures apart


def test_file_from_elsewhere_builds_registered_classes_alone(towers, tmp_path):
    command = {'type': 'os.system', 'command': f'touch {tmp_path}/run'}
    image, text = (load_exported(towers[1] / f'pair-{kind}.onnx') for kind in ('image', 'text'))
    image.metadata['preprocessing']['transforms'].insert(0, command)
    text.metadata['tokenizer'] = command
    for file, asked in ((image, noise(40, 40)), (text, 'a cat')):
        with pytest.raises(UsageError, match=r"\.onnx has type='os\.system', which is no registered class"):
            file(asked)
    assert list(tmp_path.iterdir()) == []


def test_text_tower_gives_features_of_the_model_for_every_length(towers):
    loaded, folder = towers
    texts = ['cat', 'a photo of a dog that runs', 'a very long text of more tokens than the tower can take at once']
    file = load_exported(folder / 'pair-text.onnx')
    with torch.no_grad():
        expected = loaded.model.extract_text_feat(texts).numpy()
    assert np.abs(file(texts, batch_size=3) - expected).max() < 1e-5
    ids = loaded.model.tokenizer(texts[:1])
    short = ids[:, : int(ids.argmax(1)) + 1].numpy()  # padding changes nothing
    assert np.abs(file.run({'input_ids': short})['features'] - expected[:1]).max() < 1e-5


@pytest.fixture(scope='module')
def pets(tmp_path_factory):
    """A classifier in each format, from one program of torch."""
    folder, kept = tmp_path_factory.mktemp('pets'), []
    make = exporting.make_program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, 'make_program', lambda part: kept[0] if kept else kept.append(make(part)) or kept[0])
        for suffix in ('.pt2', '.xml', '.onnx'):
            place = folder / suffix[1:] / f'pets{suffix}'
            loaded = run(config(TWO_TOWERS, RESIZE, CROP), place, '--classes', CLASSES, '--templates', 'none')
    return loaded, folder


@pytest.mark.parametrize('suffix', ['.pt2', '.xml', '.onnx'])
def test_formats_give_the_probabilities_of_the_model(pets, suffix):
    loaded, folder = pets
    folder /= suffix[1:]
    picture = noise(50, 70)
    (result,) = load_exported(folder / f'pets{suffix}')([picture], top=2)
    sample = loaded.model.test_step(loaded.preprocess(picture))[0]
    order = sample.pred_score.argsort(descending=True)[:2].tolist()
    assert result['labels'] == [CLASSES.split(', ')[label] for label in order]
    assert result['scores'] == pytest.approx(sample.pred_score[order].tolist(), abs=1e-4)
    assert {file.suffix for file in folder.iterdir()} == ({suffix, '.bin'} if suffix == '.xml' else {suffix})


def test_detector_gives_boxes_of_the_inferencer(found):
    inferencer, path = found
    file = load_exported(path)
    count = 0
    for seed, size in enumerate([(60, 90), (90, 60), (75, 200)]):
        picture = noise(*size, seed)
        (expected,), (result,) = inferencer(picture, score_thr=0.0), file(picture, score_thr=0.0)
        assert {key: expected[key] for key in ('width', 'height', 'labels')} == {
            key: result[key] for key in ('width', 'height', 'labels')
        }
        assert np.abs(np.subtract(expected['boxes'], result['boxes'])).max() <= 0.011
        assert np.abs(np.subtract(expected['scores'], result['scores'])).max() <= 1.1e-4
        count += len(result['boxes'])
    assert count > 20 and set(result['labels']) > {'red'}


def test_detector_runs_a_batch_of_other_sizes_than_alone(found):
    _, path = found
    file = load_exported(path)
    pictures = [noise(60, 90), noise(60, 90, 5)]
    alone, together = [file(picture)[0] for picture in pictures], file(pictures, batch_size=2)
    for one, other in zip(alone, together, strict=True):
        assert one['labels'] == other['labels']
        assert np.abs(np.subtract(one['boxes'], other['boxes'])).max(initial=0) <= 0.011


def test_file_refuses_a_size_that_it_does_not_take(found, towers):
    small = np.zeros((1, 3, 8, 8), dtype=np.float32)
    with pytest.raises(DataError, match='has height 8, and the file takes at least'):
        load_exported(found[1])._run(images=small)
    with pytest.raises(DataError, match='has height 8, and the file takes 32; resize it, or export with --size'):
        load_exported(towers[1] / 'pair-image.onnx')._run(images=small)


def test_page_runs_a_file_without_this_project(pets, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / 'docs/export.md').read_text()
    ours, code = re.findall(r'```py\n(.*?)```', page, flags=re.DOTALL)
    assert 'florence_mm' not in code.replace("['florence_mm']", '') and len(code.splitlines()) <= 12
    shutil.copy(pets[1] / 'onnx/pets.onnx', tmp_path)
    picture = noise(32, 32)
    cv2.imwrite(str(tmp_path / 'photo.png'), picture[..., ::-1])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(ours, 'docs/export.md', 'exec'), names)
    assert len(names['result']['labels']) == 2
    capsys.readouterr()
    exec(compile(code, 'docs/export.md', 'exec'), {})
    # a picture of 32 pixels is enlarged by the pipeline before it is cropped; the page's code takes it whole
    label, score = capsys.readouterr().out.rsplit(' ', 1)
    file = load_exported('pets.onnx')
    facts = file.metadata['preprocessing']
    values = (picture - np.array(facts['mean'])) / np.array(facts['std'])
    scores = file.run({'images': values.transpose(2, 0, 1)[None].astype(np.float32)})['scores'][0]
    assert label == file.class_names[scores.argmax()] and float(score) == pytest.approx(scores.max(), abs=1e-4)


def test_trained_weights_are_named_in_the_file(towers):
    facts = load_exported(towers[1] / 'pair-image.onnx').metadata
    assert facts['type'] == 'UniCL' and facts['preprocessing']['mean'] == pytest.approx([123.675, 116.28, 103.53])
    assert [step['type'] for step in facts['preprocessing']['transforms']][:2] == [RESIZE['type'], CROP['type']]
    assert json.dumps(facts)


def test_model_that_differs_leaves_no_file(tmp_path, monkeypatch):
    opened = exporting.open_runtime

    def broken(path, precision=None):
        found = opened(path)
        return found._replace(run=lambda inputs: {k: v + 2e-4 for k, v in found.run(inputs).items()})

    monkeypatch.setattr(exporting, 'open_runtime', broken)
    with pytest.raises(UsageError, match='differs from the model by 2.0e-04'):
        run(config(TWO_TOWERS, RESIZE, CROP), tmp_path / 'one.pt2', '--part', 'image')
    assert list(tmp_path.iterdir()) == []


def test_fixed_classifier_gives_scores_of_the_model(tmp_path):
    resize = {'type': 'mmpretrain.Resize', 'scale': 32, 'backend': 'cv2'}
    cfg = config(CLASSIFIER, resize, data_set='mmpretrain.ImageNet', pack='mmpretrain.PackInputs')
    cfg.test_dataloader.dataset.metainfo = {'classes': ['cat', 'dog', 'owl']}
    loaded = run(cfg, tmp_path / 'pets.pt2')
    picture = noise(50, 70)
    (result,) = load_exported(tmp_path / 'pets.pt2')(picture, top=3)
    sample = loaded.model.test_step(loaded.preprocess(picture))[0]
    order = sample.pred_score.argsort(descending=True).tolist()
    assert result['labels'] == [('cat', 'dog', 'owl')[label] for label in order]
    assert result['scores'] == pytest.approx(sample.pred_score[order].tolist(), abs=1e-4)
