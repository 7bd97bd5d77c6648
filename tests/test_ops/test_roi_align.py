"""RoI align against a loop over samples, and on maps whose means are known."""

import math

import pytest
import torch

from florence_mm.ops.roi_align import roi_align

ROIS = torch.tensor(
    [
        [0, 1.0, 2, 9, 13],
        [1, -6, -4, 11, 5],  # beyond the upper left border
        [0, 14, 9, 40, 30],  # beyond the lower right border
        [1, 5, 5, 5.5, 6],  # smaller than a pixel
        [1, 2, 0, 17, 13],
    ],
    dtype=torch.float64,
)


def bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    upper = (1 - dx) * plane[y0, x0] + dx * plane[y0, x1]
    return (1 - dy) * upper + dy * ((1 - dx) * plane[y1, x0] + dx * plane[y1, x1])


def naive(input, rois, size, scale, ratio, mode, aligned):
    result = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        bin_y, bin_x = height / size[0], width / size[1]
        ny, nx = (ratio or math.ceil(side) for side in (bin_y, bin_x))
        for plane in input[int(image)]:
            for i in range(size[0]):
                for j in range(size[1]):
                    values = [
                        bilinear(plane, y1 + (i + (a + 0.5) / ny) * bin_y, x1 + (j + (b + 0.5) / nx) * bin_x)
                        for a in range(ny)
                        for b in range(nx)
                    ]
                    values = torch.stack(values)
                    result.append(values.mean() if mode == 'avg' else values.max())
    return torch.stack(result).reshape(len(rois), input.shape[1], *size)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_equals_the_loop_with_its_gradient(mode, ratio, aligned):
    torch.manual_seed(0)
    input = torch.randn(2, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    arguments = (ROIS, (2, 3), 0.5, ratio, mode, aligned)
    ours, reference = roi_align(input, *arguments), naive(input, *arguments)
    torch.testing.assert_close(ours, reference)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(torch.autograd.grad(ours, input, grad), torch.autograd.grad(reference, input, grad))


def test_on_a_slope_a_bin_is_the_value_at_its_middle():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing='ij')
    slope = torch.stack([y, x])[None]
    pooled = roi_align(slope, torch.tensor([[0, 8.0, 4, 32, 28]]), (3, 2), spatial_scale=0.5)
    # on the map the region is x 3.5 ... 15.5 and y 1.5 ... 13.5
    assert pooled[0, 0].tolist() == [pytest.approx([3.5] * 2), pytest.approx([7.5] * 2), pytest.approx([11.5] * 2)]
    assert pooled[0, 1].tolist() == [pytest.approx([6.5, 12.5])] * 3


@pytest.mark.parametrize(('middle', 'value'), [(4.0, 7.0), (-1.0, 7.0), (4.01, 0.0), (-1.01, 0.0)])
def test_a_sample_up_to_a_pixel_outside_takes_the_border(middle, value):
    # one sample, in the middle of a region of two pixels, on a map of 4 x 4
    for along in (0, 1):
        corners = [0.0, 0.0, 2.0, 2.0]
        corners[along], corners[along + 2] = middle - 1, middle + 1
        rois = torch.tensor([[0.0, *corners]], dtype=torch.float64)
        out = roi_align(torch.full((1, 1, 4, 4), 7.0, dtype=torch.float64), rois, 1, 1.0, 1, 'avg', aligned=False)
        assert out.item() == value


def test_no_regions_and_regions_without_area():
    input = torch.ones(1, 3, 4, 4, requires_grad=True)
    assert roi_align(input, torch.zeros(0, 5), 7).shape == (0, 3, 7, 7)
    point = roi_align(input, torch.tensor([[0, 2.0, 2, 2, 2], [0, 0, 0, 4, 4]]), 2)
    assert point[0].abs().max() == 0
    assert point[1].min() == 1
    nowhere = roi_align(input, torch.tensor([[0, math.nan, 1, 2, 2]]), 2, sampling_ratio=2)
    assert nowhere.abs().max() == 0


def test_half_precision_computes_in_full():
    torch.manual_seed(0)
    input = torch.randn(2, 4, 7, 9).bfloat16().requires_grad_()
    pooled = roi_align(input, ROIS.float(), 3, 0.5)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, roi_align(input.float(), ROIS.float(), 3, 0.5).bfloat16())
    pooled.float().sum().backward()
    assert input.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('rois', 'keywords', 'words'),
    [
        ([[2.0, 0, 0, 1, 1]], {}, 'rois name images 2 to 2, expected 0 to 1'),
        ([[0.0, 5, 0, 1, 1]], {}, r'region 0 is \[0.0, 5.0, 0.0, 1.0, 1.0\], expected x2 >= x1'),
        ([[0.0, 0, 0, float('nan'), 1]], {}, r'region 0 is \[0.0, 0.0, 0.0, nan, 1.0\], expected finite numbers'),
        ([[0.0, 0, 0, float('inf'), 1]], {}, 'expected finite numbers'),
        ([[0.0, 0, 1, 1]], {}, r'rois \(1, 4\), expected \(B, C, H, W\) and \(N, 5\)'),
        ([[0.0, 0, 0, 1, 1]], dict(pool_mode='sum'), "pool_mode 'sum' is unknown"),
    ],
)
def test_wrong_arguments(rois, keywords, words):
    with pytest.raises(ValueError, match=words):
        roi_align(torch.zeros(2, 3, 4, 4), torch.tensor(rois), 2, **keywords)
