import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

import florence_mm.engine  # noqa: F401  (registers)
from florence_mm.engine.optim import FlorenceAmpOptimWrapper, parameter_groups
from florence_mm.models.algorithms import UniCL

CONSTRUCTOR = 'florence_mm.NoDecayOptimWrapperConstructor'


def unicl():
    return UniCL(
        {
            'type': 'CoSwin',
            'arch': {'embed_dims': 16, 'depths': [1, 1], 'num_heads': [1, 2]},
            'img_size': 32,
            'out_indices': (1,),
            'layer_scale_init_value': 0.1,
        },
        {'type': 'CLIPTextTower', 'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'vocab_size': 600},
        {'type': 'CLIPTokenizer', 'vocab_size': 600},
        embed_dims=8,
    )


DECAYED = {
    'image_encoder.patch_embed.proj.weight',
    *(
        f'image_encoder.layers.{i}.blocks.0.{name}.weight'
        for i in (0, 1)
        for name in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    ),
    'image_encoder.layers.0.downsample.proj.weight',
    'text_encoder.resblocks.0.attn.in_proj_weight',
    'text_encoder.resblocks.0.attn.out_proj.weight',
    'text_encoder.resblocks.0.mlp.c_fc.weight',
    'text_encoder.resblocks.0.mlp.c_proj.weight',
    'image_projection',
    'text_projection',
}


def test_groups_of_unicl_by_name():
    model = unicl()
    groups = parameter_groups(model, 5e-4, 0.1)
    assert sorted((g['lr'], g['weight_decay']) for g in groups) == [(5e-4, 0.0), (5e-4, 0.1)]
    names = {g['weight_decay']: set(g['names']) for g in groups}
    assert names[0.1] == DECAYED
    assert names[0.0] == {name for name, _ in model.named_parameters()} - DECAYED
    # what the paper's family must not decay, named so that a rename is noticed
    assert names[0.0] >= {
        'logit_scale',
        'text_encoder.token_embedding.weight',
        'text_encoder.positional_embedding',
        'text_encoder.ln_final.weight',
        'text_encoder.resblocks.0.attn.in_proj_bias',
        'image_encoder.patch_embed.norm.weight',
        'image_encoder.layers.0.blocks.0.attn.relative_position_bias_table',
        'image_encoder.layers.1.blocks.0.gamma',
        'image_encoder.layers.1.blocks.0.attn.qkv.bias',
    }
    parameters = dict(model.named_parameters())
    for group in groups:
        assert all(parameters[n] is p for n, p in zip(group['names'], group['params'], strict=True))


def test_learning_rates_by_parts_of_names():
    model = unicl()
    model.text_encoder.token_embedding.weight.requires_grad_(False)
    groups = parameter_groups(
        model,
        1.0,
        0.1,
        lr_mult={'image_encoder': 0.5, 'image_encoder.layers.1': 0.25, 'relative_position_bias_table': 2.5, 'proj': 9},
        decay_mult={'text_projection': 3.0},
    )
    settings = {name: (g['lr'], g['weight_decay']) for g in groups for name in g['names']}
    assert settings['image_encoder.patch_embed.proj.weight'] == (0.5, 0.1)
    assert settings['image_encoder.layers.1.blocks.0.attn.qkv.weight'] == (0.25, 0.1)
    assert settings['image_encoder.layers.1.blocks.0.attn.qkv.bias'] == (0.25, 0.0)
    # wherever it is in the name, whole between dots; of several the longest
    assert settings['image_encoder.layers.0.blocks.0.attn.relative_position_bias_table'] == (2.5, 0.0)
    assert settings['image_encoder.layers.0.blocks.0.attn.proj.weight'] == (0.5, 0.1)
    assert settings['image_projection'] == (1.0, 0.1)
    assert settings['text_projection'] == (1.0, pytest.approx(0.3))
    assert 'text_encoder.token_embedding.weight' not in settings


def test_rules_can_be_changed():
    model = unicl()
    groups = parameter_groups(model, 1.0, 0.1, no_decay=('mlp',), decay_vectors=True)
    decay = {name: g['weight_decay'] for g in groups for name in g['names']}
    assert decay['text_encoder.resblocks.0.mlp.c_fc.weight'] == 0
    assert decay['logit_scale'] == decay['text_encoder.ln_final.bias'] == 0.1
    assert decay['text_encoder.token_embedding.weight'] == 0  # an embedding, whatever its name


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'florence_mm'])
def test_built_as_a_runner_builds_it(scope):
    init_default_scope(scope)
    model = unicl()
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'constructor': CONSTRUCTOR,
            'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.05},
            'paramwise_cfg': {'lr_mult': {'image_encoder': 0.1}},
            'clip_grad': {'max_norm': 5.0},
        },
    )
    assert type(wrapper) is OptimWrapper
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    assert len(wrapper.optimizer.param_groups) == 4
    assert sum(len(g['params']) for g in wrapper.optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ('paramwise', 'words'),
    [
        ({'lr_mul': {}}, "unknown key 'lr_mul'; did you mean 'lr_mult'"),
        ({'norm_decay_mult': 0.0}, "unknown key 'norm_decay_mult'"),
        ({'lr_mult': {'image_encodr': 0.1}}, "'image_encodr', which is in no name of a parameter; did you mean 'image"),
    ],
)
def test_misspelt_options(paramwise, words):
    cfg = {'constructor': CONSTRUCTOR, 'optimizer': {'type': 'SGD', 'lr': 1.0}, 'paramwise_cfg': paramwise}
    with pytest.raises(ValueError, match=words):
        build_optim_wrapper(unicl(), cfg)


def test_nothing_to_train_and_no_learning_rate():
    with pytest.raises(ValueError, match='nothing is left to train'):
        build_optim_wrapper(
            nn.Linear(2, 2).requires_grad_(False),
            {'constructor': CONSTRUCTOR, 'optimizer': {'type': 'SGD', 'lr': 1.0}},
        )
    with pytest.raises(ValueError, match='must be a dict with type and lr'):
        build_optim_wrapper(nn.Linear(2, 2), {'constructor': CONSTRUCTOR, 'optimizer': {'type': 'SGD'}})


def amp(model, **kwargs):
    return FlorenceAmpOptimWrapper(optimizer=torch.optim.AdamW(model.parameters(), 0.1), **kwargs)


def test_bf16_on_a_cpu():
    torch.manual_seed(0)
    model, x = nn.Linear(16, 4), torch.randn(8, 16)
    wrapper = amp(model)
    with wrapper.optim_context(model):
        y = model(x)
    assert y.dtype == torch.bfloat16
    loss = y.float().square().mean()
    before, bias = model.weight.detach().clone().requires_grad_(), model.bias.detach().clone()
    wrapper.update_params(loss)
    # AdamW's first step is lr * sign(gradient), beside the decay of lr * 0.01
    gradient = torch.autograd.grad((x @ before.T + bias).square().mean(), before)[0]
    torch.testing.assert_close(model.weight, before * (1 - 0.1 * 0.01) - 0.1 * gradient.sign(), rtol=1e-3, atol=1e-3)


def test_state_travels_between_wrappers():
    model = nn.Linear(3, 3)
    wrapper = amp(model)
    wrapper.update_params(model(torch.ones(1, 3)).sum())
    state = wrapper.state_dict()
    assert 'loss_scaler' not in state
    plain = OptimWrapper(torch.optim.AdamW(model.parameters(), 0.3))
    plain.load_state_dict(state)
    assert plain.get_lr()['lr'] == [0.1]
    # and back, also from a wrapper that scaled the loss
    scaled = amp(model, loss_scale='dynamic')
    scaled.update_params(model(torch.ones(1, 3)).sum())
    saved = scaled.state_dict()
    assert saved['loss_scaler']['scale'] == 2**16
    fresh = amp(model)
    fresh.load_state_dict(saved)
    assert fresh.optimizer.state[model.weight]['step'] == 1
    assert isinstance(fresh, AmpOptimWrapper)


def test_loss_scaling_when_asked_for():
    model = nn.Linear(3, 1)
    for scale, value in ((128.0, 128.0), ({'init_scale': 32.0}, 32.0)):
        wrapper = amp(model, loss_scale=scale)
        wrapper.backward(model(torch.ones(1, 3)).sum())
        torch.testing.assert_close(model.weight.grad, torch.full((1, 3), value))
        wrapper.zero_grad()


def test_amp_accumulates_gradients_and_clips():
    model = nn.Linear(3, 1, bias=False)
    wrapper = FlorenceAmpOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), 1.0), accumulative_counts=2, clip_grad={'max_norm': 0.5}
    )
    before = model.weight.detach().clone()
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 3)).sum()
        assert torch.equal(model.weight, before)
        wrapper.update_params(loss)
    # the mean gradient is (1, 1, 1), cut to length 0.5
    torch.testing.assert_close(before - model.weight, torch.full((1, 3), 0.5 / 3**0.5), rtol=1e-3, atol=1e-3)


def test_amp_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="'float16' needs a GPU; on a CPU use 'bfloat16'"):
        amp(nn.Linear(2, 2), dtype='float16')
    with pytest.raises(ValueError, match="dtype is 'fp8'"):
        amp(nn.Linear(2, 2), dtype='fp8')
    with pytest.raises(ValueError, match="loss_scale is 'static'"):
        amp(nn.Linear(2, 2), loss_scale='static')
