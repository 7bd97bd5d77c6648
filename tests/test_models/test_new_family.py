"""A family that nothing else knows is trained, asked, saved and loaded."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from florence_mm.apis import MultimodalInferencer
from florence_mm.config.load import load_config
from florence_mm.models.checkpoints import FORMATS, load_checkpoint, register_format
from florence_mm.models.multimodal.protocol import Attending, Fuser, Reader, VisionLanguage, Writer
from florence_mm.registry import MODELS
from florence_mm.smoke import run_smoke

ROOT = Path(__file__).parents[2]
CONFIG = """
custom_imports = dict(imports=['toy_family'])
_base_ = [{bases}]
model = dict(
    type='florence_mm.ToyFamily',
    tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=600),
    heads=dict(
        ask=dict(type='florence_mm.FusionVQAHead', num_answers=4),
        pair=dict(type='florence_mm.FusionITMHead'),
        tell=dict(type='florence_mm.FusionCaptionHead', max_length=6, num_beams=2),
    ),
)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
experiment_name = 'toy_family'
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    names = ['datasets/scene_questions.py', 'default_runtime.py']
    bases = ', '.join(repr(str(ROOT / 'configs/_base_' / name)) for name in names)
    (tmp_path / 'toy.py').write_text(CONFIG.format(bases=bases))
    yield load_config(tmp_path / 'toy.py')
    sys.modules.pop('toy_family', None)
    MODELS.module_dict.pop('ToyFamily', None)
    FORMATS.pop('public toy', None)


def test_it_is_trained_for_two_steps(config, tmp_path):
    metrics = run_smoke(config, tmp_path / 'smoke')
    assert 0 <= metrics['vqa/accuracy'] <= 1, metrics
    log = next((tmp_path / 'smoke').rglob('*.log')).read_text()
    assert all(name in log for name in ('loss_vqa', 'loss_itm', 'loss_caption'))


def test_it_is_asked_saved_and_loaded(config, tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    answers = ['yes', 'no', 'two', 'red']
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'answers': answers}}}, tmp_path / 'a.pth')
    pictures = [np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8) for seed in (0, 1)]
    inferencer = MultimodalInferencer(config, tmp_path / 'a.pth', 'cpu')
    results = inferencer(pictures, ['is it red?', 'how many?'], ['a dog'], caption=True, top=4)
    inputs = model.data_preprocessor({'inputs': [torch.from_numpy(p).permute(2, 0, 1) for p in pictures]})['inputs']
    for number, result in enumerate(results):
        samples = [DataSample(text=text) for text in ('is it red?', 'how many?', 'a dog')]
        with torch.no_grad():
            batch = model.make_batch(inputs, samples, [number] * 3)
            for head in model.heads.values():
                head.predict(batch)
        for asked, sample in zip(result['answers'], samples, strict=False):
            order = sample.pred_scores.argsort(descending=True)
            assert asked['answers'] == [answers[i] for i in order]
            assert asked['scores'] == pytest.approx(sample.pred_scores[order].tolist(), abs=6e-5)
        assert result['matches'][0]['score'] == pytest.approx(samples[2].match_score, abs=6e-5)
        assert result['caption'] == samples[0].pred_caption != ''
    assert results[0]['answers'] != results[1]['answers'] and results[0]['matches'] != results[1]['matches']


def test_what_it_is(config):
    model = MODELS.build(config.model)
    assert all(isinstance(model, protocol) for protocol in (Reader, Fuser, Writer, VisionLanguage))
    assert not isinstance(model, Attending)
    worker = runpy.run_path(str(Path(__file__).with_name('meter_worker.py')))
    meter = worker['build'](())
    assert all(isinstance(meter, protocol) for protocol in (Reader, Fuser, Writer, VisionLanguage, Attending))
    silent = type('Silent', (type(model),), {'start_writing': None})
    with pytest.raises(ValueError, match=r"'tell' \(FusionCaptionHead\) needs a writer, which Silent is not"):
        MODELS.build({**config.model, 'type': silent})


def test_its_public_checkpoint_is_read(config, tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    public = {'step': torch.tensor(7)}
    for key, value in model.state_dict().items():
        public[key.replace('words.', 'embedding.').replace('patches.', 'stem.')] = value
    torch.save(public, tmp_path / 'public.pth')
    other = MODELS.build(config.model).eval()
    report = load_checkpoint(other, tmp_path / 'public.pth')
    assert (report.format, report.missing, report.unexpected) == ('public toy', [], [])
    assert report.skipped == {'step': 'not of the model'}
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(other.encode_image(image), model.encode_image(image), rtol=0, atol=0)
    with pytest.raises(ValueError, match="a checkpoint format named 'public toy' is registered already"):
        register_format('public toy', lambda keys: False)(dict)
