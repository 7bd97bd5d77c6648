"""VideoCoSwin against mmaction2's Video Swin, convolutions written out, counts and invariances."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_mm.models.backbones import VideoCoSwin
from florence_mm.models.backbones.stages import ConvEmbed, PatchMerging
from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.ops.windows import to_tokens

ARCH = {'embed_dims': 16, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4]}


def randomise(model):
    """Values under which a wrong order of anything shows."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith('bias_table'):
            nn.init.normal_(parameter, 0.5 if 'norm' in name else 0.0, 0.5)
    return model


def make(arch=ARCH, seed=0, **kwargs):
    torch.manual_seed(seed)
    return randomise(VideoCoSwin(arch, **{'drop_path_rate': 0.0, **kwargs}))


@pytest.mark.parametrize(
    ('window', 'size'),
    [
        ((2, 4, 4), (8, 64, 64)),  # shifted along every axis, the last map is one window high and wide
        ((8, 7, 7), (16, 64, 64)),  # windows clipped in time, the last also in space
        ((4, 7, 7), (11, 61, 90)),  # clips and maps that neither patch nor window divides
        ((2, 3, 5), (1, 64, 64)),
    ],
)
def test_equals_mmaction2(window, size):
    from mmaction.models import SwinTransformer3D

    kwargs = {'window_size': window, 'drop_path_rate': 0.0, 'out_indices': (0, 1, 2)}
    peer = randomise(SwinTransformer3D(ARCH, pretrained2d=False, **kwargs))
    ours = VideoCoSwin(ARCH, conv_embed=False, **kwargs)
    name, state, skipped = convert_state_dict(peer.state_dict())
    ours.load_state_dict(state)  # strict: not a key less or more
    assert name == 'Swin or CoSwin' and set(skipped.values()) == {'computed by the model'}

    x = torch.randn(2, 3, *size)
    weights = [torch.randn_like(m) for m in peer(x)]
    results = []
    for model in (ours, peer):
        leaf = x.clone().requires_grad_()
        model.train()  # mmaction2's returns None
        maps = model(leaf)
        sum((m * w).sum() for m, w in zip(maps, weights, strict=True)).backward()
        model.eval()
        with torch.no_grad():
            results.append([*maps, leaf.grad, *model(x)])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-4 * max(1, other.abs().max().item()), rtol=0)


@pytest.mark.parametrize('conv_embed', [True, False])
@pytest.mark.parametrize(('frames', 'size'), [(1, (32, 32)), (2, (45, 33)), (5, (32, 64)), (17, (40, 40))])
def test_any_length_and_size(frames, size, conv_embed):
    model = make(conv_embed=conv_embed, out_indices=(0, 1, 2)).eval()
    x = torch.randn(1, 3, frames, *size).requires_grad_()
    maps = model(x)
    stem = [(s + 2 * 2 - 7) // 4 + 1 if conv_embed else -(-s // 4) for s in size]
    for i, m in enumerate(maps):
        assert m.shape == (1, 16 * 2**i, -(-frames // 2), *(-(-s // 2**i) for s in stem))
    sum(m.square().sum() for m in maps).backward()
    assert (x.grad.abs().amax((0, 1, 3, 4)) > 0).all()  # no frame is left out


def test_single_stage_gives_a_tensor_for_mmaction2_heads():
    x = torch.randn(1, 3, 4, 32, 32)
    two = make(out_indices=(0, 2)).eval()
    one = make().eval()
    one.load_state_dict({k: v for k, v in two.state_dict().items() if not k.startswith('norm0')})
    last, both = one(x), two(x)
    assert isinstance(both, tuple) and last.shape == (1, 64, 2, 2, 2) and torch.equal(last, both[1])


@pytest.mark.parametrize('length', [1, 4, 5])
@pytest.mark.parametrize(
    ('kernel', 'stride', 'before', 'after'),
    [(3, 2, 1, {1: 1, 4: 0, 5: 1}), (2, 2, 0, {1: 1, 4: 0, 5: 1}), (3, 1, 1, 1), (2, 1, 1, 0), (1, 1, 0, 0)],
)
def test_time_is_continued_by_the_first_and_last_frame(length, kernel, stride, before, after):
    embed = ConvEmbed(3, 8, (kernel, 3, 3), (stride, 2, 2))
    x = torch.randn(2, 3, length, 6, 7)
    after = after[length] if isinstance(after, dict) else after
    padded = F.pad(x, (1, 1, 1, 1, 0, 0))
    padded = F.pad(padded, (0, 0, 0, 0, before, after), mode='replicate')
    wanted = F.conv3d(padded, embed.proj.weight, embed.proj.bias, (stride, 2, 2))
    tokens, size = embed(x)
    assert size == wanted.shape[2:] == embed.out_size((length, 6, 7)) == (-(-length // stride), 3, 4)
    torch.testing.assert_close(tokens, embed.norm(to_tokens(wanted)))


def test_merging_leaves_frames_apart():
    torch.manual_seed(0)
    merge = randomise(PatchMerging(4))
    x = torch.randn(2, 3, 5, 6, 4)  # (B, T, H, W, C)
    clip, size = merge(x.flatten(1, 3), (3, 5, 6))
    frames, _ = merge(x.flatten(0, 1).flatten(1, 2), (5, 6))
    assert size == (3, 3, 3)
    torch.testing.assert_close(clip.view(6, 9, 8), frames)


def test_parameters_of_the_paper():
    """647M (Florence, table 10), with window (8, 12, 12) and merges of one step; of two steps 25M more."""
    with torch.device('meta'):
        counts = [
            sum(p.numel() for p in VideoCoSwin('huge', window_size=(8, 12, 12), merge_temporal_kernel=k).parameters())
            for k in (1, 2)
        ]
        swin = sum(p.numel() for p in VideoCoSwin('tiny', conv_embed=False).parameters())
    assert round(counts[0] / 1e6) == 647
    # 9 weights of c x 2c more in each merge
    assert counts[1] - counts[0] == 9 * 2 * (256**2 + 512**2 + 1024**2)
    # Swin-T, its stem of two frames, and tables of 15 * 13 * 13 rows for 13 * 13
    assert swin == 27519354 + 96 * 48 + 14 * 169 * (2 * 3 + 2 * 6 + 6 * 12 + 2 * 24)


def test_windows_grow_from_stage_to_stage():
    def windows(**kwargs):
        with torch.device('meta'):
            model = VideoCoSwin(**kwargs)
        return [(stage.blocks[0].attn.window_size, stage.blocks[1].shift_size) for stage in model.layers]

    assert windows(arch='micro') == [((2, 4, 4), (1, 2, 2)), ((4, 4, 4), (2, 2, 2)), ((8, 4, 4), (4, 2, 2))]
    assert [w[0] for w in windows(arch='tiny')] == [(2, 7, 7), (4, 7, 7), (8, 7, 7), (8, 7, 7)]
    assert windows(arch='tiny', conv_embed=False) == [((8, 7, 7), (4, 3, 3))] * 4
    given = [(1, 4, 4), (2, 6, 6), (4, 8, 8), (16, 8, 8)]
    assert [w[0] for w in windows(arch='tiny', window_size=given)] == given


def test_a_window_that_shrank_reads_its_table_by_offset_or_by_slot():
    """First row of the bias of a window (1, 2, 2) out of a table for (1, 3, 3)."""
    from florence_mm.ops.windows import relative_position_bias

    table = torch.arange(25.0).view(25, 1)  # offsets (row, column) from (-2, -2) to (2, 2), row by row
    by_offset = relative_position_bias(table, (1, 2, 2), (1, 3, 3))[0]
    by_slot = relative_position_bias(table, (1, 2, 2), (1, 3, 3), by_slot=True)[0]
    assert by_offset[0].tolist() == [12, 11, 7, 6]  # offsets (0, 0), (0, -1), (-1, 0), (-1, -1)
    assert by_slot[0].tolist() == [12, 11, 10, 7]  # those of the first four of nine tokens: (0, -2), then (-1, 0)
    table = torch.randn(75, 2)  # only shorter in time: one and the same
    shorter = [relative_position_bias(table, (1, 3, 3), (2, 3, 3), by_slot) for by_slot in (True, False)]
    assert torch.equal(*shorter)


def test_order_of_frames_matters():
    model = make().eval()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        forth, back = model(x), model(x.flip(2))
    assert (forth - back.flip(2)).abs().max() > 1e-2


def test_recomputed_activations_give_the_same_gradients():
    x = torch.randn(1, 3, 4, 32, 32)
    grads = []
    for with_cp in (False, True):
        model = make(with_cp=with_cp, drop_path_rate=0.3, attn_drop_rate=0.2, merge_temporal_kernel=(2, 3)).train()
        torch.manual_seed(5)
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_stages_do_not_learn():
    model = make(frozen_stages=0).train()
    model(torch.randn(1, 3, 4, 32, 32)).square().sum().backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(('patch_embed', 'layers.0.'))}
    assert not model.layers[0].training and model.layers[1].training


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'arch': 'tinny'}, r"did you mean 'tiny'\?"),
        ({'patch_size': (4, 4)}, r'patch_size \(4, 4\) must be \(frames, height, width\)'),
        ({'window_size': [(2, 7, 7)] * 3}, r'window_size .* must be \(steps, height, width\) in tokens, or 4 of these'),
        ({'window_size': (8, 7)}, r'window_size \(8, 7\) must be'),
        ({'merge_temporal_kernel': (1, 2)}, r'merge_temporal_kernel \(1, 2\) must be a number from 1, or 3 of them'),
        ({'merge_temporal_kernel': 3, 'conv_embed': False}, 'belong to convolutional embeddings'),
        ({'out_indices': (4,)}, 'stage 4 in out_indices or frozen_stages, but stages are 0 to 3'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        VideoCoSwin(**kwargs)


@pytest.mark.parametrize('shape', [(1, 3, 32, 32), (1, 3, 2, 31, 32), (1, 4, 2, 32, 32), (1, 3, 0, 32, 32)])
def test_wrong_inputs_are_named(shape):
    with pytest.raises(ValueError, match=r'VideoCoSwin got an input of shape .*it takes \(B, 3, T, H, W\)'):
        make()(torch.zeros(shape))
