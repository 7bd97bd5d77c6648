"""Fine-tuning on classes: what it begins with, its loss, and what is refused."""

import math

import pytest
import torch
from instances import build
from mmpretrain.structures import DataSample
from small_unicl_classifier import CLASSES

from florence_mm.models.heads import TextInitializedHead


def samples(*labels):
    return [DataSample().set_gt_label(label) for label in labels]


def images(number):
    return torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_it_begins_with_what_zero_shot_predicts():
    model = build('UniCLClassifier').float()
    model.init_weights()
    model.towers.set_classes(CLASSES, ['{}'])
    expected = torch.stack([sample.pred_score for sample in model.towers.predict(images(3))])
    found = torch.stack([sample.pred_score for sample in model.predict(images(3))])
    torch.testing.assert_close(found, expected)


def test_the_loss_of_two_images_by_hand():
    model = build('UniCLClassifier').double()
    features = torch.eye(8).double()
    model.towers.training_image_feat = lambda inputs: features[: len(inputs)]
    model.head.weight.data = 3 * features[:4]  # its length does not count
    model.towers.logit_scale.data.fill_(math.log(2))
    own = math.log(1 + math.exp(-2))  # of cosines 1 and 0 times 2
    losses = model.loss(images(2).double(), samples(0, 1))
    assert losses['loss_i2c'].item() == pytest.approx(own) and losses['loss_c2i'].item() == pytest.approx(own)
    # two images of class 0: each has the same row twice, so both are positives of both
    losses = model.loss(images(2).double(), samples(0, 0))
    assert losses['loss_i2c'].item() == pytest.approx(math.log(2))
    assert losses['loss_c2i'].item() == pytest.approx(math.log(1 + math.exp(2)) - 1)
    # the temperature does not go beyond its limit
    model.towers.logit_scale.data.fill_(10)
    assert model.loss(images(2).double(), samples(0, 1))['temperature'].item() == pytest.approx(100)


def test_what_is_refused():
    model = build('UniCLClassifier').float()
    with pytest.raises(ValueError, match='sample 1 of the batch has no gt_label'):
        model.loss(images(2), [*samples(0), DataSample()])
    with pytest.raises(ValueError, match='labels from 0 to 4 must be within the 4 classes'):
        model.loss(images(2), samples(0, 4))
    with pytest.raises(ValueError, match=r'the text features have shape \(3, 6\), and the head has \(4, 6\)'):
        TextInitializedHead(4, 6).set_features(torch.zeros(3, 6))
