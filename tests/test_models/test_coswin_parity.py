"""``CoSwin(conv_embed=False)`` against the Swins of other packages on their weights."""

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


@pytest.mark.parametrize('size', [(64, 64), (80, 104)])
def test_torchvision(size):
    from torchvision.models.swin_transformer import SwinTransformer

    peer = SwinTransformer([4, 4], 16, [2, 2, 2], [1, 2, 4], [4, 4], stochastic_depth_prob=0.0, num_classes=3)
    randomise(peer)
    ours = CoSwin(ARCH, img_size=64, conv_embed=False, window_size=4, drop_path_rate=0.0)
    name, state, skipped = convert_state_dict(peer.state_dict())
    assert name == 'torchvision Swin'
    ours.load_state_dict(state)
    assert {key for key, why in skipped.items() if why != 'computed by the model'} == {'head.weight', 'head.bias'}

    class Features(nn.Module):
        def forward(self, x):
            return (peer.norm(peer.features(x)).permute(0, 3, 1, 2),)

    assert_equal(ours, Features(), size)


def hugging_face(**kwargs):
    from transformers import SwinConfig

    sizes = {'embed_dim': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'window_size': 4, 'drop_path_rate': 0.0}
    return SwinConfig(image_size=64, **sizes, **kwargs)


#: Names of transformers before its version 5, in which the files on the hub are.
BEFORE_5 = {
    '.attention.relative_position_bias.': '.attention.self.',
    '.attention.q_proj.': '.attention.self.query.',
    '.attention.k_proj.': '.attention.self.key.',
    '.attention.v_proj.': '.attention.self.value.',
    '.attention.o_proj.': '.attention.output.dense.',
    '.mlp.fc1.': '.intermediate.dense.',
    '.mlp.fc2.': '.output.dense.',
}


@pytest.mark.parametrize('before_5', [False, True])
def test_transformers(before_5):
    from transformers import SwinForImageClassification

    peer = randomise(SwinForImageClassification(hugging_face(use_absolute_embeddings=True, num_labels=3))).train()
    state = dict(peer.state_dict())
    for now, then in BEFORE_5.items() if before_5 else ():
        state = {key.replace(now, then): value for key, value in state.items()}
    name, state, skipped = convert_state_dict(state)
    assert name == 'Hugging Face Swin' and set(skipped) == {'classifier.weight', 'classifier.bias'}
    ours = CoSwin(ARCH, img_size=64, conv_embed=False, window_size=4, drop_path_rate=0.0, use_abs_pos_embed=True)
    ours.load_state_dict(state)

    class Features(nn.Module):
        def forward(self, x):
            tokens = peer.swin(x).last_hidden_state  # (B, 16, C), a map of 4 x 4
            return (tokens.unflatten(1, (4, 4)).permute(0, 3, 1, 2),)

    assert_equal(ours, Features(), (64, 64))


@pytest.mark.parametrize('size', [(64, 64), (40, 56), (128, 96)])
def test_transformers_backbone_with_the_norms_of_its_stages(size):
    from transformers import SwinBackbone

    peer = randomise(SwinBackbone(hugging_face(qkv_bias=False, out_features=['stage1', 'stage2', 'stage3']))).train()
    name, state, _ = convert_state_dict(peer.state_dict())
    assert name == 'Hugging Face Swin'
    assert not state['layers.1.blocks.0.attn.qkv.bias'].any()
    # it shifts on a map of one window too
    kwargs = {'conv_embed': False, 'window_size': 4, 'drop_path_rate': 0.0, 'out_indices': (0, 1, 2)}
    ours = CoSwin(ARCH, img_size=64, pad_small_map=True, **kwargs)
    ours.load_state_dict(state)

    class Features(nn.Module):
        def forward(self, x):
            return tuple(peer(x).feature_maps)

    assert_equal(ours, Features(), size)


def lambda_module(peer):
    """timm's features, channels first, in a tuple."""

    class Features(nn.Module):
        def forward(self, x):
            return (peer.forward_features(x).permute(0, 3, 1, 2),)

    return Features()
