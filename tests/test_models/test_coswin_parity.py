"""``CoSwin(conv_embed=False)`` against the Swins of mmpretrain, mmdet and timm on their weights."""

import pytest
import torch
from torch import nn

from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import convert_state_dict

ARCH = {'embed_dims': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4]}


def randomise(model):
    """Values under which a wrong order of anything shows."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith('bias_table'):
            nn.init.normal_(parameter, 0.5 if 'norm' in name else 0.0, 0.5)
    return model


def share(model, peer, name):
    found, state, skipped = convert_state_dict(peer.state_dict())
    assert found == name
    model.load_state_dict(state)  # strict: not a key less or more
    assert set(skipped.values()) <= {'computed by the model'}


def assert_equal(ours, peer, size, batch=2):
    x = torch.randn(batch, 3, *size)
    weight = None
    results = []
    for model in (ours, peer):
        leaf = x.clone().requires_grad_()
        maps = model(leaf)
        weight = weight or [torch.randn_like(m) for m in maps]
        sum((m * w).sum() for m, w in zip(maps, weight, strict=True)).backward()
        with torch.no_grad():
            results.append([*maps, leaf.grad, *model(x)])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=2e-4 * other.abs().max().item(), rtol=0)


@pytest.mark.parametrize('pad_small_map', [False, True])
def test_mmpretrain(pad_small_map):
    from mmpretrain.models import SwinTransformer

    kwargs = {'img_size': 64, 'window_size': 4, 'out_indices': (0, 1, 2), 'pad_small_map': pad_small_map}
    peer = randomise(SwinTransformer(ARCH, drop_path_rate=0.0, **kwargs))
    ours = CoSwin(ARCH, conv_embed=False, drop_path_rate=0.0, **kwargs)
    share(ours, peer, 'mmdet or mmpretrain Swin')
    assert_equal(ours, peer, (64, 64))  # the last map is one window: no shift, or a shift with pad_small_map
    if pad_small_map:
        assert_equal(ours, peer, (45, 38))  # the last map, 3 x 3, is smaller than the window


@pytest.mark.parametrize('size', [(64, 64), (50, 67), (33, 90)])
def test_mmdet(size):
    from mmdet.models import SwinTransformer

    peer = SwinTransformer(
        embed_dims=16,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        strides=(4, 2, 2),
        window_size=4,
        out_indices=(0, 1, 2),
        drop_path_rate=0.0,
    )
    randomise(peer)
    ours = CoSwin(ARCH, conv_embed=False, window_size=4, out_indices=(0, 1, 2), drop_path_rate=0.0, pad_small_map=True)
    share(ours, peer, 'mmdet or mmpretrain Swin')
    assert_equal(ours, peer, size)


def test_mmdet_where_only_the_window_does_not_divide():
    """Without ``pad_small_map`` maps larger than the window are still mmdet's."""
    from mmdet.models import SwinTransformer

    peer = SwinTransformer(
        embed_dims=16,
        depths=(2, 2),
        num_heads=(1, 2),
        strides=(4, 2),
        window_size=4,
        out_indices=(0, 1),
        drop_path_rate=0.0,
    )
    randomise(peer)
    ours = CoSwin(
        {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [1, 2]},
        conv_embed=False,
        window_size=4,
        out_indices=(0, 1),
        drop_path_rate=0.0,
    )
    share(ours, peer, 'mmdet or mmpretrain Swin')
    assert_equal(ours, peer, (50, 67))


def test_timm():
    from timm.models.swin_transformer import SwinTransformer

    peer = SwinTransformer(
        img_size=64,
        window_size=4,
        embed_dim=16,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        num_classes=0,
        drop_path_rate=0.0,
    )
    randomise(peer)
    ours = CoSwin(ARCH, img_size=64, conv_embed=False, window_size=4, drop_path_rate=0.0)
    share(ours, peer, 'timm Swin')
    assert_equal(ours, lambda_module(peer), (64, 64))


def lambda_module(peer):
    """timm's features, channels first, in a tuple."""

    class Features(nn.Module):
        def forward(self, x):
            return (peer.forward_features(x).permute(0, 3, 1, 2),)

    return Features()
