"""The block against mmdet's on the same weights and by hand; the head's losses against mmdet's; federated negatives."""

import math
from pathlib import Path

import pytest
import torch
from mmdet.models.necks.dyhead import DyHeadBlock as MMDetBlock
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.models.heads import DyHeadBlock, DynamicHead
from florence_mm.ops.deform_conv import modulated_deform_conv2d
from florence_mm.registry import MODELS

SIZES = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/atss_coswin-t_fpn_dyhead.py'
TRAIN = dict(
    assigner=dict(type='mmdet.ATSSAssigner', topk=9, iou_calculator=dict(type='mmdet.BboxOverlaps2D')),
    allowed_border=-1,
    pos_weight=-1,
)


def pyramid(channels=32, batch=2, sizes=SIZES, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(batch, channels, *size) for size in sizes]


def scattered(module, seed=0, std=0.2):
    """Weights at which every part of the module matters."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
    return module


def with_grads(module, feats):
    """Outputs, and the gradients by the inputs of a fixed projection of them."""
    leaves = [feat.clone().requires_grad_() for feat in feats]
    outs = module(leaves)
    torch.manual_seed(5)
    return list(outs), torch.autograd.grad(sum((out * torch.randn(out.shape)).sum() for out in outs), leaves)


# --- the block ------------------------------------------------------------------------------------------------------


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


# --- the head -------------------------------------------------------------------------------------------------------


def head(num_classes=5, num_blocks=1, **kwargs):
    built = DynamicHead(num_classes, 32, 32, num_blocks=num_blocks, train_cfg=ConfigDict(TRAIN), **kwargs)
    scattered(built)
    built.atss_cls.bias.data.zero_()
    return built


def sample(labels, seed=0, **meta):
    torch.manual_seed(seed)
    corner = torch.rand(len(labels), 2) * 60
    boxes = torch.cat([corner, corner + torch.rand(len(labels), 2) * 50 + 10], 1)
    sample = DetDataSample(metainfo=dict(img_shape=(128, 160), pad_shape=(128, 160), **meta))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.int64))
    return sample


def losses_and_grads(head, feats, samples):
    losses = head.loss(feats, samples)
    grads = torch.autograd.grad(sum(losses.values()), list(head.parameters()))
    return losses, dict(zip(dict(head.named_parameters()), grads, strict=True))


@pytest.mark.parametrize('labels', [([0, 3, 4], [1, 1]), ([2], []), ([], [])], ids=['objects', 'one empty', 'empty'])
def test_losses_equal_mmdets_from_all_logits(labels):
    ours, feats = head(), pyramid()
    samples = [sample(found, seed) for seed, found in enumerate(labels)]
    losses, grads = losses_and_grads(ours, feats, samples)
    wanted = ours.loss_by_feat(*ours(feats), [s.gt_instances for s in samples], [s.metainfo for s in samples])
    wanted = {name: sum(levels) for name, levels in wanted.items()}
    torch.testing.assert_close(losses, wanted)
    wanted = torch.autograd.grad(sum(wanted.values()), list(ours.parameters()), allow_unused=True)
    for (name, grad), peer in zip(grads.items(), wanted, strict=True):
        torch.testing.assert_close(
            grad, torch.zeros_like(grad) if peer is None else peer, atol=1e-5, rtol=1e-4, msg=name
        )


def test_unannotated_classes_get_no_gradient_from_background():
    ours, feats = head(), pyramid()
    losses, grads = losses_and_grads(
        ours,
        feats,
        [sample([0], annotated_labels=[0, 2]), sample([3], 1, annotated_labels=torch.tensor([2]))],
    )
    weight, bias = grads['atss_cls.weight'].flatten(1), grads['atss_cls.bias']
    for unknown in (1, 4):  # neither picture says anything about them
        assert not weight[unknown].any() and bias[unknown] == 0
    assert bias[2] > 0  # negatives alone push down
    assert bias[3] < 0  # a positive counts though its class is not annotated, and nothing opposes it
    everything, _ = losses_and_grads(ours, feats, [sample([0]), sample([3], 1)])
    assert losses['loss_cls'] < everything['loss_cls']
    torch.testing.assert_close(losses['loss_bbox'], everything['loss_bbox'])


def test_pictures_keep_their_own_annotated_classes():
    ours, feats = head(), pyramid()
    known = [[0, 2], None]
    samples = [sample([0], annotated_labels=known[0]), sample([3, 3], 1, annotated_labels=known[1])]
    cls_scores, *_ = ours(feats)
    logits = torch.cat([score.flatten(2) for score in cls_scores], 2)  # (B, K, A)
    got, _ = losses_and_grads(ours, feats, samples)
    everything, _ = losses_and_grads(ours, feats, [sample([0]), sample([3, 3], 1)])
    # what is missing: every term of the first picture's classes 1, 3 and 4, all of them negative
    missing = logits[0, [1, 3, 4]].sigmoid()
    missing = -(0.75 * missing**2 * (1 - missing).log()).sum()
    positives = sum(int(level.numel()) for level in positive_anchors(ours, feats, samples))
    torch.testing.assert_close(everything['loss_cls'] - got['loss_cls'], missing / positives, rtol=1e-4, atol=1e-5)


def positive_anchors(head, feats, samples):
    metas = [s.metainfo for s in samples]
    anchors, valid = head.get_anchors([feat.shape[2:] for feat in feats], metas, 'cpu')
    _, labels, *_ = head.get_targets(anchors, valid, [s.gt_instances for s in samples], metas)
    return [level[level < head.num_classes] for level in labels]


def test_no_list_and_a_full_list_are_bit_for_bit_the_ordinary_loss():
    ours, feats = head(), pyramid()
    ordinary, grads = losses_and_grads(ours, feats, [sample([0, 3]), sample([4], 1)])
    for listed in (None, [4, 3, 2, 1, 0]):
        others = [sample([0, 3], annotated_labels=listed), sample([4], 1, annotated_labels=listed)]
        losses, other_grads = losses_and_grads(ours, feats, others)
        assert all(torch.equal(losses[name], ordinary[name]) for name in ordinary)
        assert all(torch.equal(other_grads[name], grads[name]) for name in grads)


def test_one_class_stands_for_any_object():
    ours, feats = head(num_classes=1), pyramid()
    one, _ = losses_and_grads(ours, feats, [sample([0, 0]), sample([0], 1)])
    many = [sample([7, 2], annotated_labels=[2, 7]), sample([3], 1, annotated_labels=[3])]
    other, _ = losses_and_grads(ours, feats, many)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert many[0].gt_instances.labels.tolist() == [7, 2]  # the sample keeps its labels


def test_checkpointing_changes_no_gradient():
    plain, recomputed, feats = head(num_blocks=2), head(num_blocks=2, with_cp=True), pyramid()
    recomputed.load_state_dict(plain.state_dict())
    samples = [sample([0]), sample([1], 1)]
    wanted, got = (losses_and_grads(built, feats, samples) for built in (plain, recomputed))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        plain.tower(feats)
        kept = sum(saved)
        saved.clear()
        recomputed.tower(feats)
    assert sum(saved) < kept / 5


def test_published_settings_are_the_defaults():
    built = DynamicHead(80)
    assert len(built.blocks) == 6 and built.blocks[0].offset_mode == 'resized'
    levels = built.prior_generator.grid_priors([(2, 2)] * 5, device='cpu')
    assert levels[0][0].tolist() == [-28.0, -28.0, 36.0, 36.0]  # 8 strides of 8 around the middle of the first cell
    assert levels[4][3].tolist() == [192.0 - 512, 192.0 - 512, 192.0 + 512, 192.0 + 512]
    assert built.bbox_coder.stds == [0.1, 0.1, 0.2, 0.2]
    assert (built.loss_cls.alpha, built.loss_cls.gamma, built.loss_bbox.loss_weight) == (0.25, 2.0, 2.0)
    assert built.atss_cls.weight.shape == (80, 256, 1, 1) and not built.cls_convs and len(built.scales) == 5


def test_init_weights_leaves_the_blocks_alone():
    torch.manual_seed(0)
    built = DynamicHead(80, num_blocks=1)
    before = {name: value.clone() for name, value in built.blocks.state_dict().items()}
    built.init_weights()
    assert all(torch.equal(before[name], value) for name, value in built.blocks.state_dict().items())
    torch.testing.assert_close(built.atss_cls.bias.sigmoid(), torch.full((80,), 0.01))
    assert built.atss_cls.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert built.atss_reg.weight.std().item() == pytest.approx(0.01, rel=0.1) and not built.atss_reg.bias.any()


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: head(loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True)), 'loss_cls is CrossEntropyLoss'),
        (
            lambda: head().loss(pyramid(), [sample([5]), sample([])]),
            'labels from 5 to 5, but the head has num_classes=5',
        ),
        (lambda: head().loss(pyramid(), [sample([1], annotated_labels=[9])] * 2), 'annotated classes from 9 to 9'),
        (
            lambda: head().loss_by_feat(*head()(pyramid()), [], [dict(annotated_labels=[0])]),
            'cannot leave out classes, but a picture has annotated_labels',
        ),
    ],
)
def test_what_the_head_cannot_do_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scores_are_class_times_centerness_without_a_root():
    built = head(test_cfg=ConfigDict(nms_pre=3, min_bbox_size=0, score_thr=0.05, max_per_img=9))
    maps = [[torch.zeros(1, channels, *size) for size in SIZES] for channels in (5, 4, 1)]
    for level in maps[0]:
        level.fill_(-9)
    maps[0][1][0, 2, 3, 4] = 0.0  # class 2 at stride 16: probability 1/2
    maps[2][1].fill_(math.log(1 / 4))  # centerness 1/5
    maps[0][2][0, 1, 0, 0] = math.log(0.04 / 0.96)  # below the threshold on its own
    (found,) = built.predict_by_feat(*maps, batch_img_metas=[dict(img_shape=(256, 320))], with_nms=False)
    assert found.labels.tolist() == [2] and found.scores.tolist() == pytest.approx([0.5 * 0.2])
    assert found.bboxes.tolist() == [[8.0, 0.0, 136.0, 120.0]]  # 128 pixels around (72, 56), within the picture
    built.test_cfg.nms = dict(type='nms', iou_threshold=0.6)
    (found,) = built.predict_by_feat(*maps, batch_img_metas=[dict(img_shape=(256, 320))])
    assert found.scores.tolist() == pytest.approx([0.1])


# --- the pyramid and the config -------------------------------------------------------------------------------------


def test_p6_and_p7_are_detectron2s():
    neck = MODELS.build({**Config.fromfile(CONFIG).model.neck, 'in_channels': [8, 8, 8], 'out_channels': 16})
    scattered(neck)
    feats = pyramid(8, sizes=[(16, 20), (8, 10), (4, 5)])
    p3, p4, p5, p6, p7 = neck(feats)
    conv6, conv7 = neck.fpn_convs[3].conv, neck.fpn_convs[4].conv
    torch.testing.assert_close(p6, conv6(p5))
    torch.testing.assert_close(p7, conv7(p6.relu()))
    assert p6.min() < 0 and p5.min() < 0  # a relu too many or too few would show
    top = neck.lateral_convs[2].conv(feats[2])
    torch.testing.assert_close(p5, neck.fpn_convs[2].conv(top))
    middle = neck.lateral_convs[1].conv(feats[1]) + nn.functional.interpolate(top, size=(8, 10))
    torch.testing.assert_close(p4, neck.fpn_convs[1].conv(middle))


@pytest.mark.parametrize('scope', ['florence_mm', 'mmdet', 'mmpretrain'])
def test_config_builds_under_any_default_scope(scope):
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        detector = MODELS.build(Config.fromfile(CONFIG).model)
    assert type(detector.bbox_head) is DynamicHead and type(detector).__module__.startswith('mmdet')
    # lateral 1x1, output 3x3, P6 and P7
    neck = sum(256 * c + 256 for c in (192, 384, 768)) + 5 * (256 * 256 * 9 + 256)
    assert sum(p.numel() for p in detector.neck.parameters()) == neck
    block = 3 * (256 * 256 * 9 + 3 * 256) + 256 * 27 * 9 + 27 + 257 + 256 * 64 + 64 + 64 * 1024 + 1024
    predictions = (80 + 4 + 1) * 257 + 5
    assert sum(p.numel() for p in detector.bbox_head.parameters()) == 6 * block + predictions
