"""What consumers ask of models holds for ours, and for what wraps them."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel, MMDistributedDataParallel
from torch import nn

from florence_mm.models.algorithms import UniCL
from florence_mm.models.protocol import TwoTowerModel, ZeroShotModel, class_head, unwrap_model


class Mean(nn.Module):
    num_features = 3

    def forward(self, x):
        return (x,)


class Words(nn.Module):
    """Texts to the number of their letters and of their words."""

    embed_dims = 2

    def forward(self, ids):
        return ids.float()


def two_towers():
    def tokenizer(texts):
        return torch.tensor([[len(text), text.count(' ') + 1] for text in texts])

    model = UniCL(Mean(), Words(), tokenizer, embed_dims=2, logit_scale_init=0.0, templates='none')
    model.image_projection.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    model.text_projection.data = torch.eye(2)
    return model


class Views(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


class TakesNames(nn.Module):
    """As a user's project may have it."""

    def set_classes(self, names, templates):
        self.names = names


def test_two_towers_are_what_consumers_take_them_for():
    model = two_towers()
    assert isinstance(model, TwoTowerModel) and isinstance(model, ZeroShotModel)
    assert isinstance(TakesNames(), ZeroShotModel) and not isinstance(TakesNames(), TwoTowerModel)
    assert not isinstance(nn.Linear(1, 1), ZeroShotModel)
    assert model.class_names == []
    model.set_classes(['aaa', 'a b c d'])
    assert model.class_names == ['aaa', 'a b c d']
    # (3, 1) and (7, 4) beside a picture of red 4 and green 3, all of length 1
    model.logit_scale.data.fill_(torch.tensor(10.0).log())
    logits = model.class_logits(model.extract_image_feat(torch.tensor([4.0, 3.0, 9.0]).view(1, 3, 1, 1)))
    wanted = [10 * (0.8 * 3 + 0.6 * 1) / 10**0.5, 10 * (0.8 * 7 + 0.6 * 4) / 65**0.5]
    assert logits.tolist() == [pytest.approx(wanted)]
    (sample,) = model.predict(torch.tensor([4.0, 3.0, 9.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(sample.pred_score, torch.tensor(wanted).softmax(0))


def test_wrappers_are_taken_off_and_nothing_else():
    class Owner(BaseModel):
        """Its part has a wrapper's usual name."""

        def __init__(self):
            super().__init__()
            self.module = nn.Linear(1, 1)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return inputs

    model = Owner()
    assert unwrap_model(model) is model
    assert unwrap_model(Views(model)) is model
    distributed = MMDistributedDataParallel.__new__(MMDistributedDataParallel)  # the real one needs two processes
    nn.Module.__init__(distributed)
    distributed.module = Views(model)
    assert unwrap_model(distributed) is model


def test_the_head_that_names_classes():
    assert class_head(nn.Linear(1, 1)) is None
    assert class_head(SimpleNamespace(bbox_head=SimpleNamespace(num_classes=80))) == ('bbox_head', 'detector', 80)
    assert class_head(SimpleNamespace(cls_head=object())) == ('cls_head', 'recognizer', None)
    assert class_head(SimpleNamespace(bbox_head=None, cls_head=SimpleNamespace(num_classes=2))).name == 'cls_head'
