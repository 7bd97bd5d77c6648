"""RoI align on a pyramid: by hand, against mmdet's extractor, and on regions at the limits."""

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

from florence_mm.ops.pyramid_roi_align import pyramid_roi_align, region_levels

STRIDES = (4, 8, 16)


def maps(batch=2, channels=6):
    torch.manual_seed(0)
    return [torch.randn(batch, channels, 128 // s, 160 // s, dtype=torch.float64) for s in STRIDES]


def regions(batch=2, count=20):
    generator = torch.Generator().manual_seed(1)
    first, last = torch.rand(2, batch, count, 2, generator=generator, dtype=torch.float64) * 150
    boxes = torch.cat([torch.minimum(first, last), torch.maximum(first, last)], -1)
    boxes[0, 0] = torch.tensor([-40, -30, 300, 250])  # beyond all borders
    boxes[0, 1] = torch.tensor([10, 12, 10, 12])  # without area
    return boxes


def test_levels_by_side():
    sides = torch.tensor([0.0, 31, 32, 63, 64, 500])
    boxes = torch.stack([sides * 0, sides * 0, sides / 2, sides * 2], 1)  # of these areas, four times as high as wide
    assert region_levels(boxes, 3, 16).tolist() == [0, 0, 1, 1, 2, 2]
    assert region_levels(torch.full((1, 4), torch.nan), 3, 16).tolist() == [0]


@pytest.mark.parametrize(('size', 'ratio'), [(7, 2), (3, 1)])
def test_equals_mmdets_extractor_with_its_gradient(size, ratio):
    layer = {'type': 'RoIAlign', 'output_size': size, 'sampling_ratio': ratio}
    extractor = SingleRoIExtractor(layer, 6, list(STRIDES), finest_scale=16)
    feats, boxes = [feat.requires_grad_() for feat in maps()], regions()
    images = torch.arange(2.0).repeat_interleave(20)[:, None]
    wanted = extractor(feats, torch.cat([images, boxes.flatten(0, 1)], 1))  # (40, C, P, P)
    wanted = wanted.flatten(2).transpose(1, 2).reshape(2, 20, size**2, 6)
    got = pyramid_roi_align(feats, boxes, STRIDES, size, ratio, 16)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    upstream = torch.randn(wanted.shape, dtype=torch.float64)
    grads, wanted_grads = (torch.autograd.grad(out, feats, upstream, retain_graph=True) for out in (got, wanted))
    assert all(grad.any() for grad in grads)  # every level has a region
    torch.testing.assert_close(grads, wanted_grads, atol=1e-12, rtol=0)


def test_bins_are_means_of_a_ramp():
    # a map whose value is the x coordinate of the pixel's centre in the image
    feats = [((torch.arange(160 // s) + 0.5) * s).expand(1, 1, 128 // s, -1) for s in STRIDES]
    boxes = torch.tensor([[[20.0, 20, 44, 40], [30, 24, 90, 100]]])
    pooled = pyramid_roi_align(feats, boxes, STRIDES, 2, 2, 16)  # (1, 2, 4, 1)
    torch.testing.assert_close(pooled[0, 0, :, 0], torch.tensor([26.0, 38, 26, 38]))
    torch.testing.assert_close(pooled[0, 1, :, 0], torch.tensor([45.0, 75, 45, 75]))


def test_bfloat16_maps_are_sampled_at_exact_places():
    feats = [feat.bfloat16() for feat in maps()]
    boxes = regions().float() + 0.123  # bfloat16 would round to half a pixel
    pooled = pyramid_roi_align(feats, boxes, STRIDES, 3, 2, 16)
    assert pooled.dtype == torch.bfloat16
    exact = pyramid_roi_align([feat.float() for feat in feats], boxes, STRIDES, 3, 2, 16)
    torch.testing.assert_close(pooled, exact.bfloat16(), atol=0, rtol=0)


def test_none_of_either_and_what_is_no_number():
    assert pyramid_roi_align(maps(0), torch.zeros(0, 5, 4), STRIDES, 3).shape == (0, 5, 9, 6)
    assert pyramid_roi_align(maps(), torch.zeros(2, 0, 4), STRIDES, 3).shape == (2, 0, 9, 6)
    assert not pyramid_roi_align(maps(), torch.full((2, 1, 4), torch.nan), STRIDES, 3).any()
    assert not pyramid_roi_align(maps(), torch.full((2, 1, 4), 900.0), STRIDES, 3).any()  # outside of the maps


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r'boxes \(2, 4\), expected \(B, C, H, W\) each and \(B, Q, 4\)'):
        pyramid_roi_align(maps(), torch.zeros(2, 4), STRIDES, 3)
    with pytest.raises(ValueError, match=r'and boxes \(3, 1, 4\)'):
        pyramid_roi_align(maps(), torch.zeros(3, 1, 4), STRIDES, 3)
    with pytest.raises(ValueError, match=r'3 maps, but 2 strides \(\[4, 8\]\); give one stride a map'):
        pyramid_roi_align(maps(), torch.zeros(2, 1, 4), STRIDES[:2], 3)
