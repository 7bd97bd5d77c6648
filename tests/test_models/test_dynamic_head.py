"""The head's losses against mmdet's, federated negatives, prediction by hand; the pyramid and the config."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from florence_mm.models.heads import DynamicHead
from florence_mm.registry import MODELS

pyramids = runpy.run_path(str(Path(__file__).parent / 'pyramids.py'))
pyramid, scattered, SIZES = pyramids['pyramid'], pyramids['scattered'], pyramids['SIZES']
CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/atss_coswin-t_fpn_dyhead.py'
TRAIN = dict(
    assigner=dict(type='mmdet.ATSSAssigner', topk=9, iou_calculator=dict(type='mmdet.BboxOverlaps2D')),
    allowed_border=-1,
    pos_weight=-1,
)


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
@pytest.mark.parametrize(
    'focal', [{}, {'gamma': 1.5}, {'alpha': 0.4}, {'loss_weight': 3.0}], ids=['default', 'gamma', 'alpha', 'weight']
)
def test_losses_equal_mmdets_from_all_logits(labels, focal):
    ours, feats = head(loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, **focal)), pyramid()
    samples = [sample(found, seed) for seed, found in enumerate(labels)]
    # anchors in the padding of the second picture count nothing
    samples[1].set_metainfo(dict(pad_shape=(96, 120)))
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


def test_a_list_with_repetitions_is_the_list_of_what_it_names():
    ours, feats = head(), pyramid()
    wanted, wanted_grads = losses_and_grads(ours, feats, [sample([0], annotated_labels=[0, 2]), sample([3], 1)])
    # as many entries as there are classes, but not all of them
    for known in ([2, 0, 2, 0, 0], torch.tensor([2, 0])):
        got, grads = losses_and_grads(ours, feats, [sample([0], annotated_labels=known), sample([3], 1)])
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
        assert all(torch.equal(grads[name], wanted_grads[name]) for name in grads)


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


def test_mmdets_loss_of_one_class_takes_any_list():
    ours, feats = head(num_classes=1), pyramid()
    gt = sample([0]).gt_instances
    feats = tuple(level[:1] for level in feats)
    meta = sample([0]).metainfo
    plain, listed = (
        ours.loss_by_feat(*ours(feats), [gt], [{**meta, 'annotated_labels': known}]) for known in (None, [4, 7])
    )
    torch.testing.assert_close(listed, plain, rtol=0, atol=0)


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
        (
            lambda: head().loss(pyramid(), [sample([-1, 2]), sample([])]),
            'labels from -1 to 2, but the head has num_classes=5',
        ),
        (lambda: head().loss(pyramid(), [sample([1], annotated_labels=[9])] * 2), 'annotated classes from 9 to 9'),
        (
            lambda: head().loss_by_feat(*head()(pyramid()), [], [dict(annotated_labels=[0])]),
            'cannot leave out classes, but an image has annotated_labels',
        ),
        (
            lambda: head().loss_by_feat(*head()(pyramid()), [], [dict(), dict(annotated_labels=torch.tensor([]))]),
            'cannot leave out classes, but an image has annotated_labels',
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
