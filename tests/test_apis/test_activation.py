"""Maps of models whose answer is known: what each place adds to the logit."""

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.registry import DefaultScope
from torch import nn

from florence_mm.apis.activation import class_activation
from florence_mm.errors import UsageError
from florence_mm.registry import MODELS


class Pixels(nn.Module):
    """A backbone that gives means over cells of 1 x 4 x 4 pixels; ``flat`` leaves time out, as an image model's."""

    def __init__(self, flat=False):
        super().__init__()
        self.flat = flat

    def init_weights(self):
        """Nothing to draw."""

    def forward(self, x):
        maps = nn.functional.avg_pool3d(x, (1, 4, 4))
        return (x, maps.mean(2)) if self.flat else maps


def recognizer(backbone, channels, classes=3, std=255.0):
    head = {'type': 'I3DHead', 'num_classes': classes, 'in_channels': channels, 'dropout_ratio': 0.5}
    preprocessor = {'type': 'ActionDataPreprocessor', 'mean': [0.0] * 3, 'std': [std] * 3, 'format_shape': 'NCTHW'}
    model = {'type': 'mmaction.Recognizer3D', 'backbone': backbone, 'cls_head': head, 'data_preprocessor': preprocessor}
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return MODELS.build(model).eval()


def clip():
    """Dark, but for a red square that is there in the frames 1 and 2 and moves, and a green one in frame 3."""
    inputs = torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8)
    inputs[0, 0, 1, 4:8, 0:4] = 255
    inputs[0, 0, 2, 4:8, 8:12] = 51
    inputs[0, 1, 3, 12:16, 12:16] = 255
    return inputs


def test_what_each_place_adds_to_the_logit():
    model = recognizer({'type': Pixels}, 3)
    weight = torch.tensor([[8.0, -4.0, 0.0], [0.0, 16.0, 0.0], [-1.0, -1.0, -1.0]])
    model.cls_head.fc_cls.weight.data, model.cls_head.fc_cls.bias.data = weight, torch.ones(3)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    wanted = torch.zeros(2, 4, 4, 4)  # over 4 * 4 * 4 places
    wanted[0, 1, 1, 0], wanted[0, 2, 1, 2] = 8 / 64, 0.2 * 8 / 64  # green speaks against it, which is not shown
    wanted[1, 3, 3, 3] = 16 / 64
    for label in (0, 1):
        maps, chosen = class_activation(model, clip(), ActionDataSample(), label)
        assert chosen == label
        torch.testing.assert_close(maps, wanted[label])
    # the best class is 1; 2 has nothing that speaks for it
    maps, chosen = class_activation(model, clip(), ActionDataSample())
    assert chosen == 1 and torch.equal(maps, class_activation(model, clip(), ActionDataSample(), 1)[0])
    assert not class_activation(model, clip(), ActionDataSample(), 2)[0].any()
    with pytest.raises(UsageError, match='class 3 is outside the 3 classes'):
        class_activation(model, clip(), ActionDataSample(), 3)


@pytest.mark.parametrize('with_cp', [False, True])
def test_stages_of_the_backbone(with_cp):
    arch = {'embed_dims': 8, 'depths': [1, 2], 'num_heads': [1, 2], 'window_size': 4}
    backbone = {'type': 'florence_mm.VideoCoSwin', 'arch': arch, 'with_cp': with_cp, 'drop_path_rate': 0.0}
    model = recognizer(backbone, 16, std=64.0)
    inputs = torch.randint(0, 255, (1, 3, 4, 32, 48), generator=torch.Generator().manual_seed(0)).byte()
    frames = model.data_preprocessor({'inputs': [inputs], 'data_samples': [ActionDataSample()]})['inputs'][:, 0]
    # the last stage, by hand: a mean and a linear layer come behind it
    with torch.no_grad():
        maps = model.backbone(frames)[0]  # (16, t, h, w)
    weights = model.cls_head.fc_cls.weight.detach()
    for label in range(3):
        wanted = (weights[label].view(-1, 1, 1, 1) * maps).sum(0).relu() / maps[0].numel()
        torch.testing.assert_close(class_activation(model, inputs, ActionDataSample(), label)[0], wanted)
    first, second = model.backbone.layers
    assert model.backbone.last_blocks() == [first.blocks[0], second.blocks[1]]
    # an early one, by finite differences of the logit in one direction of its channels
    early, _ = class_activation(model, inputs, ActionDataSample(), 1, stage=0)
    assert early.shape == (2, 8, 12) and early.isfinite().all() and early.max() > 0
    tokens = []

    def shifted(step):
        def hook(_, args, out):
            tokens.append(out)
            return out + step

        handle = model.backbone.layers[0].blocks[-1].register_forward_hook(hook)
        with torch.no_grad():
            logit = model(frames[:, None], mode='tensor', stage='head')[0, 1].double()
        handle.remove()
        return logit

    steps = 1e-2 * torch.eye(8)
    slope = torch.stack([(shifted(step) - shifted(-step)) / 2e-2 for step in steps])  # sum of the gradient over places
    shifted(torch.zeros(8))
    plain = tokens[-1][0]  # (t h w, C)
    wanted = (plain.double() * slope / len(plain)).sum(1).relu().view(2, 8, 12).float()
    torch.testing.assert_close(early, wanted, atol=2e-5, rtol=0.02)
    with pytest.raises(UsageError, match='VideoCoSwin has no stage 2; stages are 0 to 1'):
        class_activation(model, inputs, ActionDataSample(), 0, stage=2)


def test_models_without_time_or_stages_have_their_sentence():
    with pytest.raises(UsageError, match='Pixels has no stage 0; leave `stage` out'):
        class_activation(recognizer({'type': Pixels}, 3), clip(), ActionDataSample(), 0, stage=0)
