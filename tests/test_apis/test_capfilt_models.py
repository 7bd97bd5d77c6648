import runpy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from florence_mm.apis.capfilt import ModelCaptioner, ModelMatcher
from florence_mm.errors import UsageError

ROOT = Path(__file__).parents[2]
tiny_meter = runpy.run_path(str(ROOT / 'tests/test_models/tiny_meter.py'))['tiny_meter']
CAPTION = {'caption': {'type': 'FusionCaptionHead', 'max_length': 6}}
MATCH = {'itm': {'type': 'FusionITMHead'}}
TEXTS = ['a red two', 'there are no digits', 'a five and a blue nine']


def config(heads, **data):
    pipeline = [
        {'type': 'florence_mm.LoadImage'},
        {'type': 'mmcv.Resize', 'scale': (24, 16)},
        {'type': 'florence_mm.PackImageText'},
    ]
    dataset = {'type': 'florence_mm.ImageTextManifest', 'ann_file': 'none.jsonl', 'pipeline': pipeline}
    model = {'type': lambda seed=0: tiny_meter(heads, seed=seed), **data}
    return Config({'model': model, 'test_dataloader': {'dataset': dataset}})


def pictures(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 3 * n, 30, 3), dtype=np.uint8) for n in range(count)]


@pytest.fixture(scope='module')
def matcher():
    return ModelMatcher(config(MATCH), device='cpu')


@pytest.fixture(scope='module')
def captioner():
    return ModelCaptioner(config(CAPTION), device='cpu')


def test_a_caption_depends_on_its_picture_and_seed_alone(captioner):
    images = pictures(4)
    seeds = [[1], [2, 3], [1], [4]]
    together = captioner(images, seeds, 0.9)
    assert [len(texts) for texts in together] == [1, 2, 1, 1]
    for image, own, texts in zip(images, seeds, together, strict=True):
        assert [captioner([image], [[seed]], 0.9)[0][0] for seed in own] == texts
    assert captioner(images[::-1], seeds[::-1], 0.9) == together[::-1]
    assert len({text for texts in together for text in texts}) == 5


def test_captions_are_of_the_nucleus_whatever_the_config_says(captioner):
    (image,), seeds = pictures(1), [range(30)]
    # of the smallest nucleus there is one word each time, the one of greedy search
    (drawn,) = captioner([image], seeds, 1e-9)
    plain = ModelCaptioner(config(CAPTION), device='cpu')
    inputs = plain._model.data_preprocessor(plain._loaded.preprocess([image]), False)['inputs']
    (written,) = plain._model.write(plain._model.encode_image(inputs))
    assert set(drawn) == {written.text}
    searching = {'caption': {**CAPTION['caption'], 'num_beams': 3}}
    beams = ModelCaptioner(config(searching), device='cpu')
    assert beams([image], seeds, 0.9) == captioner([image], seeds, 0.9)
    assert len(set(beams([image], seeds, 0.9)[0])) > 10


def test_probabilities_are_those_of_the_model_for_each_pair(matcher):
    images = pictures(3)
    pairs = [(0, 2), (2, 0), (0, 0), (1, 1)]
    found = matcher(images, TEXTS, pairs)
    model = matcher._loaded.model
    for (image, text), probability in zip(pairs, found, strict=True):
        batch = matcher._loaded.preprocess([images[image]])
        inputs = model.data_preprocessor(batch, False)['inputs']
        odds = model.match(model.encode_image(inputs), [TEXTS[text]], [(0, 0)])
        assert probability == pytest.approx(1 / (1 + np.exp(-float(odds))), abs=1e-6)
    assert len(set(found.round(4))) == 4


def test_other_weights_have_another_name(matcher):
    same = ModelMatcher(config(MATCH), device='cpu')
    assert same.name == matcher.name
    assert ModelMatcher(config(MATCH, seed=1), device='cpu').name != matcher.name


@pytest.mark.parametrize(
    ('kind', 'heads', 'sentence'),
    [
        (ModelCaptioner, MATCH, 'model is no captioner: the model has no head that writes captions, it has itm'),
        (ModelMatcher, CAPTION, 'model is no filter: the model has no head that matches images and sentences'),
    ],
)
def test_a_model_without_the_head_is_refused(kind, heads, sentence):
    with pytest.raises(UsageError, match=sentence):
        kind(config(heads), device='cpu')


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [
        (ModelCaptioner, 'digits is a UniCL, and no captioner; give a model that writes'),
        (ModelMatcher, 'digits is a UniCL, and no filter; give a model that matches pictures and texts'),
    ],
)
def test_a_model_of_another_kind_is_refused(kind, sentence):
    with pytest.raises(UsageError, match=sentence):
        kind(ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py', device='cpu')


def test_a_model_that_does_not_say_how_to_prepare_pictures_is_refused():
    bare = config(MATCH)
    bare.pop('test_dataloader')
    with pytest.raises(UsageError, match='has no test_dataloader, which says how to prepare pictures'):
        ModelMatcher(bare, device='cpu')
