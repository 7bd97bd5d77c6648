import torch
from torch import nn
from torch.nn import functional as F

from florence_mm.engine.complexity import count_macs, count_parameters, readable, table
from florence_mm.models.backbones.coswin import CoSwin


def swin_tiny_macs() -> int:
    """Swin-T at 224 pixels, equation 2 of the Swin paper (arXiv 2103.14030) and its layers, without the head."""
    total = 56 * 56 * 96 * 3 * 4 * 4
    channels, side = 96, 56
    for stage, depth in enumerate((2, 2, 6, 2)):
        tokens = side * side
        attention = 4 * tokens * channels**2 + 2 * 49 * tokens * channels
        mlp = 8 * tokens * channels**2
        total += depth * (attention + mlp)
        if stage < 3:
            total += tokens // 4 * (4 * channels) * (2 * channels)
            channels, side = 2 * channels, side // 2
    return total


def test_swin_tiny():
    model = CoSwin('tiny', conv_embed=False)
    macs = count_macs(model, lambda: model(torch.zeros(1, 3, 224, 224)))
    assert macs[''] == swin_tiny_macs() == 4_489_798_656
    parts = sum(n for name, n in macs.items() if name.startswith('layers.') and name.count('.') == 1)
    assert macs['layers'] == parts == macs[''] - macs['patch_embed']
    assert count_parameters(model)[''] == 27_519_354


class Two(nn.Module):
    """A layer used twice, attention, and a part that is called past its forward."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.part = nn.Sequential(nn.Linear(8, 4, bias=False))

    def forward(self, x):
        q = self.fc(self.fc(x))
        return self.part.forward(F.scaled_dot_product_attention(q, q, q))


def test_by_hand():
    model = Two()
    # 4-D, as fused kernels want it
    macs = count_macs(model, lambda: model(torch.zeros(1, 1, 5, 8)))
    # 5 tokens: two layers of 8 x 8, scores and values of 5 x 5 x 8, a layer of 8 x 4
    assert macs['fc'] == 2 * 5 * 64 and macs['part'] == macs['part.0'] == 5 * 32
    assert macs[''] == 2 * 5 * 64 + 2 * 5 * 5 * 8 + 5 * 32
    lines = table(model, macs, depth=1).split('\n')
    assert [line.split() for line in lines[1:]] == [
        ['Two', '104', '1.20', 'k'],
        ['fc', '72', '640'],
        ['part', '32', '160'],
    ]


def test_readable():
    assert [readable(n) for n in (28_288_354, 4.5e9, 2e12, 999)] == ['28.29 M', '4.50 G', '2.00 T', '999']
