"""CoSwin against a reference in a few lines, counts worked by hand, and invariances."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_mm.models.backbones import CoSwin
from florence_mm.models.layers.swin import DropPath, WindowBlock
from florence_mm.registry import MODELS

SMALL = {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [1, 2], 'window_size': 4}


def make(arch='micro', seed=0, **kwargs):
    torch.manual_seed(seed)
    model = CoSwin(arch, **{'img_size': 32, 'drop_path_rate': 0.0, **kwargs})
    for name, parameter in model.named_parameters():  # tables and biases that matter
        if parameter.ndim == 1 or name.endswith('bias_table'):
            nn.init.normal_(parameter, float(name.endswith('norm.weight')), 0.5)
    return model


def reference(state, x, depths, heads, window):
    """CoSwin in plain words: attention over the whole map, where only tokens of one window see each other."""

    def norm(x, key):
        return F.layer_norm(x, x.shape[-1:], state[f'{key}.weight'], state[f'{key}.bias'])

    def linear(x, key):
        return F.linear(x, state[f'{key}.weight'], state[f'{key}.bias'])

    def conv(x, key, stride, padding):
        x = F.conv2d(x.permute(0, 3, 1, 2), state[f'{key}.proj.weight'], state[f'{key}.proj.bias'], stride, padding)
        return norm(x.permute(0, 2, 3, 1), f'{key}.norm')

    outs = []
    x = conv(x.permute(0, 2, 3, 1), 'patch_embed', 2, 1)
    for i, (depth, h) in enumerate(zip(depths, heads, strict=True)):
        batch, height, width, channels = x.shape
        y = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')).flatten(1)  # (2, L)
        offset = y[:, :, None] - y[:, None, :]
        for j in range(depth):
            shift = window // 2 if j % 2 and height > window else 0
            cell = torch.div(y - shift, window, rounding_mode='floor')
            apart = (cell[:, :, None] != cell[:, None, :]).any(0)
            key = f'layers.{i}.blocks.{j}'
            row = ((offset[0] + window - 1) * (2 * window - 1) + offset[1] + window - 1).masked_fill(apart, 0)
            bias = state[f'{key}.attn.relative_position_bias_table'][row].permute(2, 0, 1)  # (h, L, L)
            bias = bias.masked_fill(apart, -torch.inf)
            qkv = linear(norm(x, f'{key}.norm1'), f'{key}.attn.qkv').flatten(1, 2)
            q, k, v = qkv.view(batch, -1, 3, h, channels // h).permute(2, 0, 3, 1, 4)
            score = q @ k.transpose(-1, -2) * (channels // h) ** -0.5 + bias
            out = (score.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
            gamma = state.get(f'{key}.gamma', 1)
            x = x + gamma * linear(out, f'{key}.attn.proj')
            x = x + gamma * linear(F.gelu(linear(norm(x, f'{key}.norm2'), f'{key}.mlp.fc1')), f'{key}.mlp.fc2')
        last = i == len(depths) - 1
        outs.append(norm(x, 'norm' if last else f'norm{i}').permute(0, 3, 1, 2))
        if not last:
            x = conv(x, f'layers.{i}.downsample', 2, 1)
    return outs


@pytest.mark.parametrize('scale', [None, 0.3])
def test_equals_the_reference(scale):
    model = make(out_indices=(0, 1, 2), layer_scale_init_value=scale)
    x = torch.randn(2, 3, 32, 32)
    wanted = reference(model.state_dict(), x, [2, 2, 2], [1, 2, 4], 4)
    trained = model.train()(x)
    with torch.no_grad():
        evaluated = model.eval()(x)
    for ours, ours_too, theirs in zip(trained, evaluated, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(ours_too, theirs, atol=2e-5, rtol=1e-5)
    assert [tuple(o.shape) for o in trained] == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4)]


@pytest.mark.parametrize(
    ('arch', 'conv_embed', 'million'),
    [
        ('tiny', False, 27.519354),  # official Swin-T, 28,288,354, without its head of 769,000
        # 96 * 3 * (49 - 16) more in the stem; merges of c channels: 18 c^2 + 6 c for 8 c^2 + 8 c
        ('tiny', True, 27.519354 + 0.009504 + 0.091968 + 0.368256 + 1.473792),
        ('small', False, 48.837258),
        ('base', False, 86.743224),
        ('large', False, 194.995476),
        ('huge', True, 637.371952),
    ],
)
def test_parameter_counts(arch, conv_embed, million):
    with torch.device('meta'):
        model = CoSwin(arch, conv_embed=conv_embed)
    assert sum(p.numel() for p in model.parameters()) == round(million * 1e6)


def test_count_of_the_smallest_model_by_hand():
    model = CoSwin({'embed_dims': 4, 'depths': [1, 1], 'num_heads': [1, 2]}, img_size=32, window_size=4)
    stem = 4 * 3 * 49 + 4 + 2 * 4

    def block(c, h, table):
        return 4 * c + table * h + 3 * c * c + 3 * c + c * c + c + 2 * 4 * c * c + 5 * c

    merge = 8 * 4 * 9 + 8 + 2 * 8
    assert sum(p.numel() for p in model.parameters()) == stem + block(4, 1, 49) + merge + block(8, 2, 49) + 2 * 8


def test_stages_smaller_than_the_window_get_smaller_tables_as_in_the_public_code():
    with torch.device('meta'):
        model = CoSwin('tiny', img_size=64)  # maps of 16, 8, 4, 2 tokens a side
    tables = [stage.blocks[1].attn.relative_position_bias_table.shape[0] for stage in model.layers]
    assert tables == [13**2, 13**2, 7**2, 3**2]
    assert [stage.blocks[1].shift_size for stage in model.layers] == [(3, 3), (3, 3), (2, 2), (1, 1)]


@pytest.mark.parametrize('conv_embed', [True, False])
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (45, 32), (101, 64)])
def test_any_size_from_32_pixels(size, conv_embed):
    model = make(SMALL, conv_embed=conv_embed, out_indices=(0, 1)).eval()
    maps = model(torch.randn(1, 3, *size))
    stem = [(s + 2 * 2 - 7) // 4 + 1 if conv_embed else -(-s // 4) for s in size]
    assert list(maps[0].shape[2:]) == stem and list(maps[1].shape[2:]) == [-(-s // 2) for s in stem]
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize('size', [(64, 64), (50, 75)])
@pytest.mark.parametrize(('qkv', 'kept'), [(1, 10**6), (1, 0), (5000, 0), (10**5, 10**6)])
def test_evaluation_works_off_large_batches_in_pieces(monkeypatch, size, qkv, kept):
    from florence_mm.models.layers import swin
    from florence_mm.ops import inference as residual

    model = make(SMALL, img_size=64).double().eval()
    x = torch.randn(3, 3, *size).double()
    wanted = model(x)[0]
    monkeypatch.setattr(swin, '_QKV_ELEMENTS', qkv)
    monkeypatch.setattr(swin, '_CACHED_ELEMENTS', kept)
    monkeypatch.setattr(residual, '_HIDDEN_ELEMENTS', 700)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], wanted, atol=1e-12, rtol=1e-12)


def test_a_block_leaves_its_input_alone():
    block = WindowBlock(8, 2, (4, 4), (2, 2)).eval()
    x = torch.randn(2, 64, 8)
    kept = x.clone()
    with torch.no_grad():
        block(x, (8, 8))
    assert torch.equal(x, kept)


def test_one_block_serves_images_and_clips():
    torch.manual_seed(0)
    flat, deep = WindowBlock(8, 2, (4, 4), (2, 2)).eval(), WindowBlock(8, 2, (1, 4, 4), (0, 2, 2)).eval()
    deep.load_state_dict(flat.state_dict())
    x = torch.randn(2, 3 * 48, 8)  # three frames of 6 x 8 tokens
    frames = x.view(6, 48, 8)
    clip = deep(x, (3, 6, 8)).view(6, 48, 8)
    torch.testing.assert_close(clip, flat(frames, (6, 8)), atol=1e-6, rtol=1e-5)


def test_shrunk_window_is_global_attention_without_shift():
    torch.manual_seed(0)
    shifted = WindowBlock(8, 2, (4, 4), (2, 2)).eval()
    plain = WindowBlock(8, 2, (4, 4), (0, 0)).eval()
    plain.load_state_dict(shifted.state_dict())
    x = torch.randn(1, 12, 8)
    assert torch.equal(shifted(x, (3, 4)), plain(x, (3, 4)))
    # both reach every token: a change of one token changes all
    y = x.clone()
    y[0, 0] += torch.randn(8)
    assert ((shifted(x, (3, 4)) - shifted(y, (3, 4))).abs().amax(-1) > 0).all()


def test_kept_bias_follows_every_change_of_the_table():
    model = make(SMALL).eval()
    table = model.layers[0].blocks[1].attn.relative_position_bias_table
    x = torch.randn(1, 3, 32, 32)

    def fresh():
        return copy.deepcopy(model).train()(x)[0].detach()

    with torch.no_grad():
        model(x)
        table.add_(torch.randn_like(table))
        torch.testing.assert_close(model(x)[0], fresh(), atol=2e-5, rtol=1e-5)
        table.data.copy_(torch.randn_like(table))  # as weight averaging does
        torch.testing.assert_close(model(x)[0], fresh(), atol=2e-5, rtol=1e-5)
        model.load_state_dict(make(SMALL, seed=1).state_dict())
        torch.testing.assert_close(model(x)[0], fresh(), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(model.double()(x.double())[0].float(), fresh_float(model, x), atol=2e-5, rtol=1e-5)


def test_biases_are_kept_on_the_cpu_alone():
    with torch.device('meta'), torch.no_grad():
        model = make(SMALL).to('meta').eval()
        model(torch.randn(1, 3, 32, 32))
    # elsewhere no look at the table is free, and a table that changed unseen would be a wrong answer
    assert not any(m._cache for m in model.modules() if hasattr(m, '_cache'))


def fresh_float(model, x):
    return copy.deepcopy(model).float().train()(x)[0].detach()


def test_kept_biases_are_few():
    model = make(SMALL).eval()
    with torch.no_grad():
        for side in (32, 40, 48, 56, 64, 72):
            model(torch.randn(1, 3, side, side))
    sizes = [len(m._cache) for m in model.modules() if hasattr(m, '_cache')]
    assert max(sizes) == 2
    model.train()
    assert not any(m._cache for m in model.modules() if hasattr(m, '_cache'))


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.3])
def test_recomputed_activations_give_the_same_gradients(drop_path_rate):
    x = torch.randn(2, 3, 32, 32)
    grads = []
    for with_cp in (False, True):
        model = make(with_cp=with_cp, drop_path_rate=drop_path_rate, attn_drop_rate=drop_path_rate).train()
        torch.manual_seed(5)
        model(x)[0].square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_stages_do_not_learn():
    model = make(frozen_stages=0, out_indices=(0, 1, 2)).train()
    sum(m.square().sum() for m in model(torch.randn(1, 3, 32, 32))).backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    frozen = {name for name, _ in model.named_parameters()} - learns
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(('patch_embed', 'layers.0.', 'norm0'))}
    assert not model.layers[0].training and model.layers[1].training
    assert model.eval() is model and model.train() is model


def test_drop_path_rises_linearly_and_keeps_the_mean():
    with torch.device('meta'):
        model = CoSwin('tiny', drop_path_rate=0.2)
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.2 * i / 11 for i in range(12)])
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(20000, 1, 2))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02) and torch.equal(out[..., 0], out[..., 1])


def test_position_embedding_follows_the_size():
    model = make(SMALL, use_abs_pos_embed=True, drop_rate=0.0).eval()
    assert model.absolute_pos_embed.shape == (1, 64, 16)
    with torch.no_grad():
        flat = make(SMALL, use_abs_pos_embed=True).eval()
        flat.absolute_pos_embed.fill_(0.5)  # a constant stays one under any resize
        x = torch.randn(1, 3, 48, 40)
        plain = make(SMALL).eval()
        plain.load_state_dict({k: v for k, v in flat.state_dict().items() if k != 'absolute_pos_embed'})
        plain.patch_embed.norm.bias += 0.5
        torch.testing.assert_close(flat(x)[0], plain(x)[0], atol=1e-5, rtol=1e-5)
    model.train()(torch.randn(1, 3, 48, 40))[0].sum().backward()
    assert model.absolute_pos_embed.grad.abs().sum() > 0


def test_what_is_not_decayed():
    model = make(use_abs_pos_embed=True, layer_scale_init_value=1e-4)
    decayed = {name for name, _ in model.named_parameters()} - model.no_weight_decay()
    assert {n.split('.', 4)[-1] if 'blocks' in n else n for n in decayed} == {
        'attn.qkv.weight',
        'attn.proj.weight',
        'mlp.fc1.weight',
        'mlp.fc2.weight',
        'patch_embed.proj.weight',
        'layers.0.downsample.proj.weight',
        'layers.1.downsample.proj.weight',
    }


def test_layer_depths():
    with torch.device('meta'):
        model = CoSwin('tiny')
    depths = {
        'backbone.patch_embed.proj.weight': 0,
        'backbone.layers.0.blocks.0.norm1.weight': 1,
        'backbone.layers.0.downsample.proj.weight': 2,
        'backbone.layers.2.blocks.5.mlp.fc1.bias': 10,
        'backbone.norm.weight': 13,
        'head.weight': 13,
    }
    assert {k: model.get_layer_depth(k, 'backbone.') for k in depths} == {k: (d, 14) for k, d in depths.items()}


def test_official_buffers_and_tables_of_another_window_load():
    model, wide = make(SMALL, window_size=4), make(SMALL, window_size=6, img_size=64)
    state = model.state_dict()
    assert not any(k.endswith(('index', 'attn_mask')) for k in state)
    state['layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(16, 16)
    state['layers.0.blocks.1.attn_mask'] = torch.zeros(4, 16, 16)
    wide.load_state_dict(state)
    key = 'layers.0.blocks.1.attn.relative_position_bias_table'
    picture = F.interpolate(model.state_dict()[key].t().view(1, 1, 7, 7), size=(11, 11), mode='bicubic')
    torch.testing.assert_close(wide.state_dict()[key][:, 0], picture.flatten())


def test_builds_from_the_registry_of_every_package():
    import mmdet.registry
    import mmpretrain.registry

    for registry in (MODELS, mmdet.registry.MODELS, mmpretrain.registry.MODELS):
        model = registry.build({'type': 'florence_mm.CoSwin', 'arch': 'micro', 'img_size': 32})
        assert type(model) is CoSwin
    assert model.num_features == 128
    assert [(f['num_chs'], f['reduction']) for f in model.feature_info] == [(32, 2), (64, 4), (128, 8)]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'arch': 'tinny'}, r"arch 'tinny' is none of micro, .*; did you mean 'tiny'\?"),
        ({'arch': {'embed_dim': 8, 'depths': [1], 'num_heads': [1]}}, r"'embed_dim'.*did you mean 'embed_dims'\?"),
        ({'arch': {'embed_dims': 8, 'depths': [1]}}, 'arch lacks num_heads'),
        ({'arch': {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1]}}, '2 depths but 1 num_heads'),
        ({'arch': {'embed_dims': 10, 'depths': [1], 'num_heads': [4]}}, '10 channels do not divide into 4 heads'),
        ({'arch': 'tiny', 'out_indices': (1, 4)}, 'stage 4 in out_indices or frozen_stages, but stages are 0 to 3'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CoSwin(**kwargs)


@pytest.mark.parametrize('shape', [(1, 3, 31, 32), (1, 4, 32, 32), (3, 32, 32), (1, 3, 2, 32, 32)])
def test_wrong_inputs_are_named(shape):
    with pytest.raises(ValueError, match=r'CoSwin got an input of shape .*it takes \(B, 3, H, W\).* at least 32'):
        make()(torch.zeros(shape))
