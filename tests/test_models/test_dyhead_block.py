"""The block of Dynamic Head against mmdet's on the same weights and by hand."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from mmdet.models.necks.dyhead import DyHeadBlock as MMDetBlock
from torch import nn

from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.models.layers.dyhead_block import DyHeadBlock
from florence_mm.ops.deform_conv import modulated_deform_conv2d

pyramids = runpy.run_path(str(Path(__file__).parent / 'pyramids.py'))
pyramid, scattered = pyramids['pyramid'], pyramids['scattered']


def with_grads(module, feats):
    """Outputs, and the gradients by the inputs of a fixed projection of them."""
    leaves = [feat.clone().requires_grad_() for feat in feats]
    outs = module(leaves)
    torch.manual_seed(5)
    return list(outs), torch.autograd.grad(sum((out * torch.randn(out.shape)).sum() for out in outs), leaves)


def test_block_in_legacy_mode_equals_mmdet():
    peer = scattered(MMDetBlock(32, 32, zero_init_offset=False))
    _, state, _ = convert_state_dict({f'neck.dyhead_blocks.0.{k}': v for k, v in peer.state_dict().items()})
    ours = DyHeadBlock(32, offset_mode='legacy')
    ours.load_state_dict({k.removeprefix('bbox_head.blocks.0.'): v for k, v in state.items()})
    feats = pyramid()
    outs, grads = with_grads(ours, feats)
    peer_outs, peer_grads = with_grads(peer, feats)
    torch.testing.assert_close(outs, peer_outs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grads, peer_grads, atol=1e-4, rtol=1e-4)
    # the two readings differ, or the test shows nothing
    resized = DyHeadBlock(32)
    resized.load_state_dict(ours.state_dict())
    assert (resized(feats)[0] - outs[0]).abs().max() > 0.01
    torch.testing.assert_close(resized(feats)[-1], outs[-1])  # the coarsest level has no coarser one


def test_number_of_parameters_is_mmdets_and_three_biases():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(DyHeadBlock()) == count(MMDetBlock(256, 256)) + 3 * 256


def test_how_the_coarser_level_reads_offsets():
    offset = torch.arange(18 * 16.0).reshape(1, 18, 4, 4)
    mask = torch.arange(9 * 16.0).reshape(1, 9, 4, 4)
    size = torch.Size((2, 2))
    # the public kernel goes through flat memory in the smaller shape
    flat, flat_mask = DyHeadBlock(16, offset_mode='legacy')._for_coarser(offset, mask, size)
    assert flat.flatten().tolist() == list(range(72)) and flat_mask.flatten().tolist() == list(range(36))
    # means of 2x2 cells, 0 1 4 5 and so on; offsets in pixels twice as large
    small, small_mask = DyHeadBlock(16)._for_coarser(offset, mask, size)
    torch.testing.assert_close(small_mask[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    torch.testing.assert_close(small[0, 0], torch.tensor([[1.25, 2.25], [5.25, 6.25]]))
    # 3x5 to 2x3: (y, x) each by its own ratio
    ones = torch.ones(1, 18, 3, 5)
    small, _ = DyHeadBlock(16)._for_coarser(ones, ones[:, :9], torch.Size((2, 3)))
    torch.testing.assert_close(small[0, :2, 0, 0], torch.tensor([2 / 3, 3 / 5]))


def test_constant_offsets_move_what_each_branch_reads():
    block = scattered(DyHeadBlock(16))
    nn.init.zeros_(block.offset_conv.weight)
    shift = torch.tensor([1.0, -2.0] * 9 + [0.0] * 9)  # one down, two left; masks of a half
    block.offset_conv.bias.data.copy_(shift)
    feats = pyramid(16, batch=1, sizes=[(8, 8), (4, 4), (2, 2)])

    def conv(name, feat, size, dy, dx):
        part = getattr(block, name)
        offset = torch.tensor([dy, dx] * 9)[None, :, None, None].expand(1, 18, *size)
        out = modulated_deform_conv2d(
            feat, offset, torch.full((1, 9, *size), 0.5), part.weight, part.bias, 2 if name == 'low' else 1, 1
        )
        return part.norm(out)

    branches = [conv('mid', feats[1], (4, 4), 1.0, -2.0), conv('low', feats[0], (4, 4), 1.0, -2.0)]
    coarse = conv('high', feats[2], (2, 2), 0.5, -1.0)
    branches.append(nn.functional.interpolate(coarse, size=(4, 4), mode='bilinear', align_corners=True))
    torch.testing.assert_close(block(feats)[1], block._fuse(branches), atol=1e-5, rtol=1e-5)


def test_without_offsets_both_modes_agree():
    block, other = scattered(DyHeadBlock(16)), DyHeadBlock(16, offset_mode='legacy')
    nn.init.zeros_(block.offset_conv.weight)
    nn.init.zeros_(block.offset_conv.bias)
    other.load_state_dict(block.state_dict())
    feats = pyramid(16)
    torch.testing.assert_close(block(feats), other(feats))


def test_scale_and_task_attention_by_hand():
    block = DyHeadBlock(16)
    for parameter in (*block.scale_attn.parameters(), *block.task_attn.fc2.parameters()):
        nn.init.zeros_(parameter)
    two, four = torch.full((1, 16, 2, 2), 2.0), torch.full((1, 16, 2, 2), -4.0)

    def fused(*branches):
        return block._fuse(list(branches))[0, 0, 0, 0].item()

    # hsigmoid(relu(0)) = 1/2; with h = 1/2 the lines are x and 0: a plain ReLU
    assert fused(two) == pytest.approx(1.0)
    assert fused(two, two, two) == pytest.approx(1.0)
    assert fused(two, four) == 0
    block.scale_attn.bias.data.fill_(1.5)  # hsigmoid(1.5) = 3/4
    assert fused(two) == pytest.approx(1.5)
    block.scale_attn.bias.data.fill_(-9)  # ReLU before hsigmoid: never below 1/2
    assert fused(two) == pytest.approx(1.0)
    block.task_attn.fc2.bias.data.fill_(3)  # h = 1: a1 = 2, b1 = 1/2, a2 = 1, b2 = 1/2
    assert fused(two) == pytest.approx(2 * 1.0 + 0.5)
    assert fused(four) == pytest.approx(-2.0 + 0.5)
    block.task_attn.fc2.bias.data.copy_(torch.tensor([-3.0, 3.0, 3.0, -3.0]).repeat_interleave(16))
    # h = 0, 1, 1, 0: a1 = 0, b1 = 1/2, a2 = 1, b2 = -1/2: the order is a1, b1, a2, b2
    assert fused(two) == pytest.approx(0.5) and fused(torch.full((1, 16, 1, 1), 8.0)) == pytest.approx(3.5)


def test_block_starts_as_published():
    torch.manual_seed(0)
    block = DyHeadBlock()
    for part in (block.high, block.mid, block.low):
        assert part.weight.std().item() == pytest.approx(0.01, rel=0.02) and not part.bias.any()
        assert part.norm.num_groups == 16
    bound = 1 / math.sqrt(256 * 9)  # PyTorch's own: uniform
    assert block.offset_conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert block.low.stride == 2 and block.high.stride == block.mid.stride == 1


def test_block_compiles_without_graph_breaks():
    for mode in ('resized', 'legacy'):
        block = scattered(DyHeadBlock(16, offset_mode=mode))
        feats = pyramid(16, batch=1, sizes=[(6, 7), (3, 4)])
        compiled = torch.compile(block, backend='eager', fullgraph=True)
        outs, grads = with_grads(block, feats)
        compiled_outs, compiled_grads = with_grads(compiled, feats)
        torch.testing.assert_close(compiled_outs, outs)
        torch.testing.assert_close(compiled_grads, grads)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DyHeadBlock(offset_mode='rezised'), "offset_mode='rezised' does not exist"),
        (lambda: DyHeadBlock(24), 'channels=24'),
        (lambda: DyHeadBlock(16)(pyramid(16, sizes=[(8, 8), (5, 4)])), r'\[\(8, 8\), \(5, 4\)\]'),
    ],
)
def test_what_the_block_cannot_do_is_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
