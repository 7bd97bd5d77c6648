import pickle

import numpy as np
import pytest
import torch

from florence_mm.apis.embedding import embed_packed, embed_texts
from florence_mm.apis.relevance import MakeTowers, Towers
from florence_mm.errors import UsageError

CONFIG = 'configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py'


@pytest.fixture(scope='module')
def towers():
    torch.manual_seed(0)
    return Towers(CONFIG, device='cpu')


def test_features_are_those_of_the_model_alone(towers):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    prepared = [towers.prepare(image), towers.prepare(image[:, ::-1])]
    images, texts = towers(prepared, ['seven', 'a picture of the digit two'])
    loaded = towers._loaded
    packed = loaded.preprocess([image, image[:, ::-1]])
    np.testing.assert_allclose(images, embed_packed(loaded.model, loaded.cfg, packed))
    np.testing.assert_allclose(texts, embed_texts(loaded.model, ['seven', 'a picture of the digit two']))
    assert images.shape == texts.shape == (2, towers.width) and towers.width == 64
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)


def test_pictures_need_the_pixels_that_the_pipeline_gives(towers):
    assert towers.least == 32


def test_another_weight_is_another_model(towers):
    torch.manual_seed(0)
    same = Towers(CONFIG, device='cpu')
    torch.manual_seed(1)
    assert same.name == towers.name != Towers(CONFIG, device='cpu').name


def test_features_that_are_no_numbers_are_given_as_they_are(towers):
    torch.manual_seed(0)
    broken = Towers(CONFIG, device='cpu')
    with torch.no_grad():
        next(broken._loaded.model.image_encoder.parameters()).fill_(float('nan'))
    images, texts = broken([broken.prepare(np.zeros((32, 32, 3), np.uint8))], ['seven'])
    assert np.isnan(images).any() and np.isfinite(texts).all()


def test_what_makes_towers_can_be_sent_to_processes():
    make = MakeTowers(CONFIG, None, 'cpu')
    assert pickle.loads(pickle.dumps(make)) == make


def test_a_model_without_texts_is_refused():
    config = 'configs/swin/swin-t_imagenet1k.py'
    with pytest.raises(UsageError, match='does not compare pictures and texts; name a model such as UniCL'):
        Towers(config, device='cpu')
