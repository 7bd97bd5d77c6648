"""DaViT by itself: sizes, options, kept results, refusals; see ``test_davit_parity.py`` for other packages."""

import pytest
import torch
from public_davit import ARCH, davit, spread

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import FlorenceDaViT
from florence_mm.models.text import CLIPTextTower


@pytest.mark.parametrize(
    ('arch', 'millions'), [('micro', 0.624384), ('tiny', 29.524992), ('small', 50.91072), ('large', 360.63232)]
)
def test_parameter_counts(arch, millions):
    with torch.device('meta'):
        model = FlorenceDaViT(arch)
    assert sum(p.numel() for p in model.parameters()) == round(1e6 * millions)


def test_imagenets_classifier_has_the_papers_size():
    with torch.device('meta'):
        model = FlorenceDaViT('tiny', window_size=7, merge_kernel=2, channel_scale='channels', out_norm='pooled')
    assert sum(p.numel() for p in model.parameters()) + 769_000 == 28_360_168  # 28.3 M (arXiv 2204.03645)


def test_what_detectors_and_pretraining_read():
    model = davit(out_indices=(1, 2), out_norm='map')
    assert (model.num_features, [f['num_chs'] for f in model.feature_info]) == (64, [16, 32, 64])
    assert [f['reduction'] for f in model.feature_info] == [4, 8, 16]
    first, second = model(torch.randn(2, 3, 66, 50))
    assert first.shape == (2, 32, 9, 7) and second.shape == (2, 64, 5, 4)
    tokens = second.flatten(2).transpose(1, 2)
    normed = (tokens - model.norm.bias) / model.norm.weight
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 20), atol=1e-4, rtol=0)
    depths = {
        'patch_embed.proj.weight': 0,
        'layers.0.blocks.0.channel_block.mlp.fc1.weight': 1,
        'layers.0.downsample.proj.weight': 1,
        'layers.1.blocks.1.spatial_block.conv1.weight': 3,
        'norm.weight': 5,
    }
    assert {key: model.get_layer_depth(key) for key in depths} == {key: (depth, 6) for key, depth in depths.items()}
    assert 'layers.0.blocks.0.spatial_block.attn.qkv.bias' in model.no_weight_decay()


def test_pooled_features_are_the_norm_of_the_maps_mean():
    pooled, plain = davit(out_norm='pooled'), davit()
    plain.load_state_dict({key: value for key, value in pooled.state_dict().items() if not key.startswith('norm')})
    x = torch.randn(2, 3, 64, 80)
    (feature,), (last,) = pooled(x), plain(x)
    torch.testing.assert_close(feature, pooled.norm(last.mean((2, 3))))
    text = CLIPTextTower({'embed_dims': 64, 'num_layers': 1, 'num_heads': 1}, vocab_size=50, context_length=12)
    towers = UniCL(pooled, text, tokenizer=lambda texts: None, embed_dims=6)
    expected = torch.nn.functional.normalize(feature @ towers.image_projection, dim=1)
    torch.testing.assert_close(towers.extract_image_feat(x), expected)


def test_recomputed_blocks_give_the_same_gradients():
    models = [spread(davit(with_cp=with_cp)).train() for with_cp in (False, True)]
    x = torch.randn(2, 3, 64, 96)
    for model in models:
        model(x)[0].square().mean().backward()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_fast_paths_change_nothing():
    """A hook on a layer makes a block compute by plain layers, in training and in evaluation."""
    model, x = davit(), torch.randn(2, 3, 64, 100)
    with torch.no_grad():
        fast = model(x)[0]
    model.train()
    model(x)[0].square().mean().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    for name, module in model.named_modules():
        if name.endswith(('fc1', 'qkv', 'proj')):
            module.register_forward_hook(lambda *_: None)
    model.zero_grad()
    model(x)[0].square().mean().backward()
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-5 * float(grad.abs().max()), rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x)[0], fast, atol=1e-5, rtol=1e-5)


def test_frozen_stages():
    model = davit(frozen_stages=1).train()
    model(torch.randn(1, 3, 64, 64))[0].sum().backward()
    learning = {name.split('.blocks')[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {'layers.2'} and not model.layers[1].training and model.layers[2].training


def test_stochastic_depth_rises_over_the_blocks_of_both_kinds():
    model = FlorenceDaViT(ARCH, drop_path_rate=0.7)
    rates = [
        block.drop_path.rate
        for stage in model.layers
        for pair in stage.blocks
        for block in (pair.spatial_block, pair.channel_block)
    ]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'arch': 'bas'}, r"arch 'bas' is none of micro, tiny, .*did you mean 'base'"),
        ({'arch': {'embed_dims': 8, 'depths': [1], 'num_heads': [1]}}, r'give a list of the channels of each of the 1'),
        ({'arch': {'embed_dims': [8], 'depths': [1, 1], 'num_heads': [1, 1]}}, r'2 depths but 1 embed_dims'),
        ({'arch': {**ARCH, 'num_groups': [3, 2, 4]}}, r'16 channels do not divide into 1 heads and 3 groups'),
        ({'arch': {**ARCH, 'num_groups': [0, 2, 4]}}, r'16 channels do not divide into 1 heads and 0 groups'),
        ({'arch': ARCH, 'patch_size': 0}, r'patch_size is 0; give a whole number from 1'),
        ({'arch': {**ARCH, 'window_size': -3}}, r'window_size is -3; give a whole number from 1'),
        ({'arch': ARCH, 'merge_kernel': 5}, r'merge_kernel is 5; give one of 2, 3'),
        ({'arch': ARCH, 'channel_scale': 'token'}, r"channel_scale is 'token'; give one of 'tokens', 'channels'"),
        ({'arch': ARCH, 'out_norm': True}, r"out_norm is True; give one of None, 'map', 'pooled'"),
        ({'arch': ARCH, 'out_norm': 'pooled', 'out_indices': (1, 2)}, r"out_norm='pooled' gives one vector"),
        ({'arch': ARCH, 'out_indices': (3,)}, r'stage 3 in out_indices or frozen_stages, but stages are 0 to 2'),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FlorenceDaViT(**kwargs)


@pytest.mark.parametrize('shape', [(3, 64, 64), (1, 4, 64, 64), (1, 3, 31, 64)])
def test_inputs_that_are_refused(shape):
    with pytest.raises(ValueError, match=r'DaViT got an input of shape .*takes \(B, 3, H, W\) with H and W at'):
        davit()(torch.randn(shape))
