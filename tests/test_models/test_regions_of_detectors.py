"""Regions that a detector's boxes and maps give."""

import pytest
import torch
from instances import build

from florence_mm.models.protocol import region_maps
from florence_mm.ops.detected_regions import choose_boxes, pool_regions, pool_whole


def test_boxes_that_are_one_object_share_their_classes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [40, 0, 50, 10], [60, 0, 70, 10]])
    scores, labels = torch.tensor([0.6, 0.3, 0.5, 0.15, 0.1]), torch.tensor([1, 0, 2, 0, 0])
    found = choose_boxes(boxes, scores, labels, 3, threshold=0.2, least=1, most=100)
    assert found.boxes.tolist() == boxes[[0, 2]].tolist()
    # background first; 0.6 is shared 0.3 to 0.6 by the two classes of the first object
    expected = torch.tensor([[0.4, 0.2, 0.4, 0], [0.5, 0, 0, 0.5]])
    torch.testing.assert_close(found.probabilities, expected)
    assert len(choose_boxes(boxes, scores, labels, 3, 0.2, least=3, most=100).boxes) == 3
    assert len(choose_boxes(boxes, scores, labels, 3, 0.0, least=1, most=2).boxes) == 2
    assert choose_boxes(boxes[:0], scores[:0], labels[:0], 3, 0.2, 10, 100).probabilities.shape == (0, 4)


def test_a_region_is_the_mean_of_its_part_of_the_map():
    maps = [torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 8, 8)]
    maps[0][1, 0, :8, :8] = 4.0
    small, large = torch.tensor([[1.0, 1, 27, 27]]), torch.tensor([[0.0, 0, 64, 64], [1, 1, 27, 27]])
    first, second = pool_regions(maps, [small, large], (64, 64))
    assert first.tolist() == [[0.0]]
    assert second.flatten().tolist() == pytest.approx([1.0, 4.0])  # the whole image is pooled from the coarser map


def test_a_crop_is_the_mean_of_the_map_that_suits_it_without_padding():
    maps = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8)]
    # strides of 4 and 8: a crop of 60 pixels is 15 cells of the first map, and of the second 7.5
    weights = torch.tensor([1.0] * 7 + [0.5])
    expected = (maps[1] * weights * weights[:, None]).sum((2, 3)) / weights.sum() ** 2
    torch.testing.assert_close(pool_whole(maps, (64, 64), 60), expected)
    torch.testing.assert_close(pool_whole(maps, (64, 64), 48), maps[0][:, :, :12, :12].mean((2, 3)))
    torch.testing.assert_close(pool_whole(maps[:1], (64, 64), 64), maps[0].mean((2, 3)))


@torch.no_grad()
def test_detectors_and_towers_have_maps():
    detector, tower = build('ZeroShotDetector'), build('CoSwin')
    inputs = torch.randn(2, 3, 64, 64, dtype=next(detector.parameters()).dtype)
    assert [tuple(one.shape[1:]) for one in region_maps(detector, inputs)] == [(16, 32, 32), (16, 16, 16), (16, 8, 8)]
    assert region_maps(tower, inputs)[0].shape == (2, 32, 8, 8)
    with pytest.raises(ValueError, match=r'gives no maps \(B, C, H, W\)'):
        region_maps(torch.nn.Flatten(), inputs)
