"""Dynamic DETR: the dynamic filter and the stages by hand, matching and losses, what an image may lack."""

import math

import numpy as np
import pytest
import torch
from instances import build
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from small_dynamic_detr import DETECTOR

from florence_mm.apis import DetectionInferencer
from florence_mm.models.heads import DynamicDETRHead
from florence_mm.models.layers.dynamic_decoder import DynamicFilter, move_boxes, spread_boxes

SIZE, STRIDES = (96, 128), (8, 16)


def head(num_classes=3, dtype=torch.float64, seed=0, **kwargs):
    torch.manual_seed(seed)
    options = dict(num_queries=6, num_stages=3, num_heads=2, filter_channels=4, feedforward_channels=24, roi_size=3)
    built = DynamicDETRHead(num_classes, 16, strides=STRIDES, **{**options, **kwargs}).to(dtype)
    for stage in built.stages:
        torch.nn.init.normal_(stage.refine[-1].weight, std=0.05)
        torch.nn.init.normal_(stage.classify.bias)
    return built.eval()


def pyramid(batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 16, SIZE[0] // s, SIZE[1] // s, generator=generator).to(dtype) for s in STRIDES]


def sample(boxes, labels, **meta):
    found = DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), **meta))
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    found.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.int64))
    return found


BOXES = [[10, 12, 40, 60], [60, 20, 90, 50], [5, 60, 30, 90]]


def samples(**meta):
    return [sample(BOXES, [0, 2, 1], **meta), sample(BOXES[1:2], [2])]


def grads(head, loss):
    return torch.autograd.grad(loss, list(head.parameters()), allow_unused=True)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_dynamic_convolution_equals_a_loop():
    torch.manual_seed(0)
    channels, width, size = 5, 3, 2
    layer = DynamicFilter(channels, width, size).double()
    torch.nn.init.normal_(layer.norm.weight)
    regions, query = torch.randn(2, 4, size**2, channels).double(), torch.randn(2, 4, channels).double()
    got = layer(regions, query)
    for image in range(2):
        for number in range(4):
            numbers = layer.weights.weight @ query[image, number] + layer.weights.bias  # C D of them
            positions = []
            for place in range(size**2):
                out = torch.stack(
                    [
                        sum(regions[image, number, place, c] * numbers[c * width + d] for c in range(channels))
                        for d in range(width)
                    ]
                )
                normal = (out - out.mean()) / (out.var(unbiased=False) + 1e-5).sqrt()
                positions.append((normal * layer.norm.weight + layer.norm.bias).clamp(min=0))
            wanted = layer.project.weight @ torch.cat(positions) + layer.project.bias
            torch.testing.assert_close(got[image, number], wanted)


def test_the_first_boxes_cover_the_image():
    boxes = spread_boxes(12, 0.3)  # 4 columns, 3 rows
    assert boxes[0].tolist() == pytest.approx([0.125, 1 / 6, 0.3, 0.3])
    assert boxes[-1].tolist() == pytest.approx([0.875, 5 / 6, 0.3, 0.3])
    made = head(num_queries=12, box_size=0.3, num_stages=1)
    torch.testing.assert_close(made.query_boxes.weight.sigmoid(), boxes.double())


def test_each_stage_moves_the_boxes_of_the_one_before():
    made = head()
    for number, stage in enumerate(made.stages):
        torch.nn.init.zeros_(stage.refine[-1].weight)
        step = [0.1 * number, -0.2, math.log(2), 0]
        stage.refine[-1].bias.data = torch.tensor(step).double()
    _, boxes = made(pyramid())
    previous = made.query_boxes.weight.sigmoid()
    for number, found in enumerate(boxes):
        x, y, w, h = previous.unbind(-1)
        previous = torch.stack([x + 0.1 * number * w, y - 0.2 * h, 2 * w, h], -1)
        torch.testing.assert_close(found, previous.expand(2, -1, -1))
    # a step is limited, so that sides stay finite
    far = move_boxes(torch.tensor([0.5, 0.5, 0.2, 0.4]), torch.tensor([0, 0, 1e6, -1e6]))
    assert far.tolist() == pytest.approx([0.5, 0.5, 0.2 * 62.5, 0.4 / 62.5])


def test_a_query_reads_the_maps_in_its_box_alone():
    # from the finest level
    made = head(num_queries=1, num_stages=1, box_size=0.25, finest_scale=1000)
    feats = [feat.requires_grad_() for feat in pyramid()]
    logits, boxes = made(feats)
    fine, coarse = torch.autograd.grad(logits.sum() + boxes.sum(), feats)
    # x from 48 to 80 and y from 36 to 60 pixels; a column's centre is at 8 n + 4. The first samples are at x = 50.7 and
    # y = 38, between columns 5 and 6 and rows 4 and 5
    read = fine.abs().sum((0, 1)) > 0  # (12, 16)
    assert read[4:8, 5:11].all() and read.sum() == 24
    assert not coarse.any()


def test_a_stage_sends_no_gradient_to_the_boxes_before_it():
    made = head()
    logits, boxes = made(pyramid())
    first = made.stages[0].refine[-1].weight
    assert torch.autograd.grad(boxes[0].sum(), first, retain_graph=True)[0].any()
    later = logits[1:].sum() + boxes[1:].sum()
    # there is no way to it but by the boxes
    assert not torch.autograd.grad(later, first, retain_graph=True)[0].any()
    # queries hand theirs on
    assert torch.autograd.grad(later, made.stages[0].mlp[0].weight)[0].any()


def test_queries_have_no_order():
    made = head()
    logits, boxes = made(pyramid())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for table in (made.query_embedding, made.query_boxes):
        table.weight.data = table.weight.data[order]
    other_logits, other_boxes = made(pyramid())
    torch.testing.assert_close(other_logits, logits[:, :, order])
    torch.testing.assert_close(other_boxes, boxes[:, :, order])


def test_padding_behind_an_image_changes_nothing():
    made, feats = head(box_size=0.1), pyramid()
    sizes = torch.tensor([SIZE, SIZE])
    alone = made(feats, sizes)
    torch.testing.assert_close(made(feats), alone)  # all of the map
    wider = [torch.nn.functional.pad(feat, (0, 4, 0, 2), value=9.0) for feat in feats]
    torch.testing.assert_close(made(wider, sizes), alone)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_a_perfect_prediction_has_no_loss():
    made, given = head(), samples()
    logits, boxes = torch.full((3, 2, 6, 3), -30.0), torch.rand(3, 2, 6, 4) * 0.2 + 0.4
    for image, one in enumerate(given):
        x1, y1, x2, y2 = (one.gt_instances.bboxes / torch.tensor([128.0, 96, 128, 96])).unbind(1)
        exact = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        places = [4, 1, 3][: len(exact)]
        boxes[:, image, places] = exact
        logits[:, image, places, one.gt_instances.labels] = 30.0
    losses = made.loss_by_feat(logits, boxes, [s.gt_instances for s in given], [s.metainfo for s in given])
    assert len(losses) == 9 and {'loss_cls', 'd0.loss_bbox', 'd1.loss_iou'} < set(losses)
    for loss in losses.values():
        assert float(loss) == pytest.approx(0, abs=1e-5)
    # one class exchanged: 0.75 (p = 1 as a negative) + 0.25 (p = 0 as a positive) of 30, over four objects, times two
    logits[:, 1, 4] = logits[:, 1, 4].flip(-1)
    losses = made.loss_by_feat(logits, boxes, [s.gt_instances for s in given], [s.metainfo for s in given])
    assert float(losses['loss_cls']) == pytest.approx(2 * 30 / 4, rel=1e-4)


def test_losses_by_hand():
    made = head(num_classes=2, num_queries=2, num_stages=1)
    logits = torch.tensor([[[[0.0, -math.log(3)], [math.log(3), 0.0]]]])  # probabilities 1/2, 1/4 and 3/4, 1/2
    boxes = torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]]])
    given = sample([[0, 0, 64, 48]], [0])  # that of the second query, exactly
    losses = made.loss_by_feat(logits, boxes, [given.gt_instances], [given.metainfo])
    negative = [-0.75 * p**2 * math.log(1 - p) for p in (1 / 2, 1 / 4, 1 / 2)]
    positive = -0.25 * (1 / 4) ** 2 * math.log(3 / 4)
    assert float(losses['loss_cls']) == pytest.approx(2 * (sum(negative) + positive), rel=1e-5)
    assert float(losses['loss_bbox']) == 0
    assert float(losses['loss_iou']) == pytest.approx(0, abs=1e-6)


def test_the_order_of_objects_does_not_matter():
    made, feats = head(), pyramid()
    back = [sample(BOXES[::-1], [1, 2, 0]), sample(BOXES[1:2], [2])]
    losses, other = (made.loss(feats, given) for given in (samples(), back))
    torch.testing.assert_close(losses, other)


@pytest.mark.parametrize('found', [([], []), ([[20, 20, 20, 20]], [1]), (BOXES * 3, [0, 1, 2] * 3)])
def test_images_without_boxes_with_one_of_no_size_and_with_too_many(found):
    made, feats = head(), pyramid()
    given = [sample(*found), sample([], [])]
    losses = made.loss(feats, given)
    assert all(loss.isfinite() for loss in losses.values())
    all_grads = grads(made, sum(losses.values()))
    # every parameter has a gradient, as training in several processes needs
    assert all(grad is not None and grad.isfinite().all() for grad in all_grads)


def test_classes_that_are_not_annotated_are_no_negatives():
    made, feats = head(num_classes=4), pyramid()
    given = [sample(BOXES[:1], [0], annotated_labels=[0, 1]), sample(BOXES[:1], [3], annotated_labels=[1])]
    losses = made.loss(feats, given)
    everything = made.loss(feats, [sample(BOXES[:1], [0]), sample(BOXES[:1], [3])])
    bias = [stage.classify.bias for stage in made.stages]
    for grad in torch.autograd.grad(sum(losses.values()), bias, retain_graph=True):
        assert grad[2] == 0 and grad[1] > 0 and grad[3] != 0
    assert losses['loss_cls'] < everything['loss_cls']
    torch.testing.assert_close(losses['loss_bbox'], everything['loss_bbox'])


def test_one_class_takes_all_labels():
    made, feats = head(num_classes=1), pyramid()
    same = made.loss(feats, [sample(BOXES, [0, 0, 0]), sample(BOXES[1:2], [0])])
    torch.testing.assert_close(made.loss(feats, samples()), same)


def test_what_cannot_be_trained_is_said_in_a_sentence():
    made, feats = head(), pyramid()
    with pytest.raises(ValueError, match=r'a.png has labels from 0 to 3, but the head has num_classes=3 \(0 to 2\)'):
        made.loss(feats, [sample(BOXES, [0, 3, 1], img_path='a.png'), sample([], [])])
    wrong = [*BOXES[:2], [1.0, 2.0, math.inf, 4.0]]
    with pytest.raises(ValueError, match=r'a.png has boxes that are not finite; correct them'):
        made.loss(feats, [sample(wrong, [0, 2, 1], img_path='a.png'), sample([], [])])
    feats[0][:] = torch.nan
    with pytest.raises(ValueError, match=r'not finite; the training diverged, lower the learning rate'):
        made.loss(feats, samples())
    for options, message in (
        (dict(in_channels=20), 'in_channels=20; give a multiple of 8 and of num_heads=8'),
        (dict(num_queries=0), 'num_queries=0, num_stages=6, box_size=0.25; give at least one query'),
        (dict(loss_cls=dict(type='mmdet.CrossEntropyLoss')), 'CrossEntropyLoss with softmax; give a sigmoid loss'),
    ):
        with pytest.raises(ValueError, match=message):
            DynamicDETRHead(3, **options)


# --- ways to run ------------------------------------------------------------------------------------------------------


def test_recomputed_stages_give_the_same_gradients():
    made, feats = head(), pyramid()
    kept = grads(made, sum(made.loss(feats, samples()).values()))
    made.with_cp = True
    torch.testing.assert_close(grads(made, sum(made.loss(feats, samples()).values())), kept)


def test_mixed_precision_keeps_boxes_and_losses_in_fp32():
    made, feats = head(dtype=torch.float32), pyramid(dtype=torch.float32)
    wanted = made.loss(feats, samples())
    with torch.autocast('cpu', torch.bfloat16):
        logits, boxes = made(feats)
        losses = made.loss(feats, samples())
    assert logits.dtype == boxes.dtype == torch.float32
    for name, loss in losses.items():
        torch.testing.assert_close(loss, wanted[name], rtol=0.05, atol=0.02)
    half = made.bfloat16()
    logits, boxes = half([feat.bfloat16() for feat in feats])
    assert boxes.dtype == torch.float32 and boxes.isfinite().all()


def test_predictions_are_the_best_pairs_in_pixels_of_the_original():
    made, feats = head(test_cfg=dict(max_per_img=4)), pyramid()
    one, two = samples()
    two.set_metainfo(dict(scale_factor=(0.5, 0.25), ori_shape=(384, 256)))
    logits, boxes = made(feats)
    for image, found in enumerate(made.predict(feats, [one, two])):
        scores, places = logits[-1, image].sigmoid().flatten().topk(4)
        torch.testing.assert_close(found.scores, scores)
        assert found.labels.tolist() == (places % 3).tolist()
        x, y, w, h = boxes[-1, image, places // 3].unbind(1)
        corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1) * torch.tensor([128, 96, 128, 96])
        corners = torch.minimum(corners.clamp(min=0), torch.tensor([128, 96, 128, 96]))
        back = torch.tensor([[1, 1], [2, 4]])[image].repeat(2)
        torch.testing.assert_close(found.bboxes, corners * back)
    assert len(head(num_queries=6).predict(feats, [one, two])[0]) == 18  # all there are of at most 100


@pytest.mark.parametrize(('given', 'most'), [({'max_per_img': 5}, 5), (None, 3)])
def test_settings_of_the_head_hold_unless_the_detector_has_them(given, most):
    own = {**DETECTOR['bbox_head'], 'test_cfg': {'max_per_img': 3}}
    assert build('DynamicDETR', bbox_head=own, test_cfg=given).bbox_head.test_cfg['max_per_img'] == most


def test_the_box_regression_has_so_many_hidden_layers():
    def count(layers):
        return sum(p.numel() for p in head(num_reg_fcs=layers).stages[0].refine.parameters())

    assert count(2) - count(1) == 16 * 16 + 16
    assert count(0) == 16 * 4 + 4


def test_the_encoder_takes_the_tower_of_dynamic_head():
    tower = build('DynamicHead')
    state = {name: value for name, value in tower.state_dict().items() if name.startswith('blocks.')}
    encoder = build('DynamicDETREncoder')
    assert state.keys() == encoder.state_dict().keys()
    encoder.load_state_dict(state)
    feats = [torch.randn(1, 16, side, side, dtype=torch.float64) for side in (16, 8, 4)]
    torch.testing.assert_close(list(encoder(feats)), tower.tower(feats))


def test_the_inferencer_finds_and_draws_boxes(tmp_path):
    def made():
        return build('DynamicDETR', dtype=torch.float32)

    pipeline = [
        {'type': 'mmdet.LoadImageFromFile'},
        {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
        {'type': 'mmdet.Resize', 'scale': (64, 48), 'keep_ratio': True},
        {'type': 'mmdet.PackDetInputs'},
    ]
    dataset = {'type': 'mmdet.CocoDataset', 'ann_file': 'nowhere.json', 'pipeline': pipeline}
    dataset['metainfo'] = {'classes': ('red', 'blue')}
    cfg = Config({'model': {'type': made}, 'test_dataloader': {'dataset': dataset}})
    pictures = np.random.default_rng(0).integers(0, 255, (2, 96, 128, 3), dtype=np.uint8)
    one, two = DetectionInferencer(cfg)(list(pictures), score_thr=0.0, out_dir=tmp_path)
    assert len(one['boxes']) == len(two['boxes']) == 5 and set(one['labels']) <= {'red', 'blue'}
    assert one['scores'] == sorted(one['scores'], reverse=True)
    # in pixels of the image, which is twice as large as what the model saw
    assert all(0 <= x1 <= x2 <= 128 and 0 <= y1 <= y2 <= 96 for x1, y1, x2, y2 in one['boxes'])
    assert max(x2 for *_, x2, _ in one['boxes'] + two['boxes']) > 64
    assert len(list(tmp_path.glob('*.jpg'))) + len(list(tmp_path.glob('*.png'))) == 2
