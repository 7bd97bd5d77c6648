"""Box suppression against the procedure written out box by box, and against values worked by hand."""

import math

import pytest
import torch

from florence_mm.ops import boxes as box_ops
from florence_mm.ops.boxes import box_iou, nms, soft_nms


def random_boxes(count, seed=0, size=100.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * size], 1)
    return boxes, torch.rand(count, generator=generator)


def iou(a, b, offset=0):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    overlap = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    return overlap / (sum(areas) - overlap)


def greedy(boxes, scores, threshold, offset=0):
    boxes, kept = boxes.tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def test_overlap_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 2], [2, 0, 6, 2], [10, 10, 12, 12]])
    assert box_iou(boxes[:1], boxes).tolist() == [[1, pytest.approx(4 / 12), 0]]
    assert box_iou(boxes[:1], boxes[1:2], offset=1).item() == pytest.approx(9 / 21)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [1, 60, 300])
@pytest.mark.parametrize('block', [7, 128])
def test_nms_is_greedy(count, offset, block, monkeypatch):
    monkeypatch.setattr(box_ops, '_BLOCK', block)  # kept boxes remove within a block and beyond it
    for seed in range(3):
        boxes, scores = random_boxes(count, seed)
        assert nms(boxes, scores, 0.3, offset).tolist() == greedy(boxes, scores, 0.3, offset)


def test_a_removed_box_removes_nothing():
    # 0 removes 1, so 1 cannot remove 2; and so on down the chain
    boxes = torch.tensor([[3.0 * i, 0, 3.0 * i + 10, 10] for i in range(9)])
    assert nms(boxes, torch.arange(9, 0, -1).float(), 0.5).tolist() == [0, 2, 4, 6, 8]


def test_an_overlap_of_the_threshold_stays_and_equal_scores_go_by_place():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 2, 2]])  # overlaps 0.5 and 1
    assert nms(boxes, torch.ones(3), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.ones(3), 0.49).tolist() == [0]


def test_boxes_without_area_and_not_numbers_remove_nothing():
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [math.nan] * 4, [0, 0, 2, 2]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.5).tolist() == [0, 1, 2, 3]


def test_nothing_to_suppress():
    empty = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert empty.shape == (0,)
    assert empty.dtype == torch.int64
    dets, index = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert (dets.shape, index.shape, index.dtype) == ((0, 5), (0,), torch.int64)


def soft(boxes, scores, threshold, sigma, min_score, method):
    """The paper's procedure: take the best, lower the rest."""
    rest, result = dict(enumerate(scores.tolist())), []
    boxes = boxes.tolist()
    while rest:
        best = max(rest, key=rest.get)
        result.append((best, rest.pop(best)))
        for i in list(rest):
            overlap = iou(boxes[best], boxes[i])
            if method == 'gaussian':
                rest[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                rest[i] *= 1 - overlap if method == 'linear' else 0
            if rest[i] < min_score:
                del rest[i]
    return result


@pytest.mark.parametrize('method', box_ops.SOFT_METHODS)
@pytest.mark.parametrize('min_score', [1e-3, 0.2])
def test_soft_nms(method, min_score):
    boxes, scores = random_boxes(80)
    dets, index = soft_nms(boxes, scores, 0.3, 0.5, min_score, method)
    expected = soft(boxes, scores, 0.3, 0.5, min_score, method)
    assert index.tolist() == [i for i, _ in expected]
    assert dets[:, 4].tolist() == pytest.approx([score for _, score in expected], abs=1e-5)
    assert torch.equal(dets[:, :4], boxes[index])


def test_soft_nms_leaves_its_arguments_alone():
    boxes, scores = random_boxes(30)
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores)
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


def test_wrong_arguments():
    boxes, scores = random_boxes(3)
    with pytest.raises(ValueError, match=r'boxes have shape \(3, 4\) and scores \(2,\)'):
        nms(boxes, scores[:2], 0.5)
    with pytest.raises(ValueError, match="method 'hard' is unknown, choose one of naive, linear, gaussian"):
        soft_nms(boxes, scores, method='hard')


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64])
def test_overlap_of_whole_numbers(dtype):
    """uint8 corners whose areas exceed 255, one box of floats, and corners that float32 would round."""
    boxes = torch.tensor([[0, 0, 200, 200], [100, 0, 250, 200]], dtype=dtype)
    third = torch.tensor([[0.0, 0, 100, 200]])
    assert box_iou(boxes[:1], boxes[1:]).item() == pytest.approx(2 / 5)
    assert box_iou(boxes[:1], third).item() == box_iou(third, boxes[:1]).item() == pytest.approx(1 / 2)
    if dtype == torch.int64:
        far = boxes + 2**25 + 1
        assert box_iou(far[:1], far[1:]).item() == pytest.approx(2 / 5)
