"""RoI align on a feature pyramid: each region is pooled from the level that fits its size (arXiv 1612.03144, eq. 1).

All regions of all levels are one weighted sum of pixels, so nothing depends on how many regions a level has, and the
call can be exported. Coordinates are float32 at least, also beside bfloat16 maps.

Shapes: ``B`` images, ``Q`` regions of an image, ``C`` channels, ``P`` bins along a side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import at_least_float32
from .roi_align import bin_means, pixel_rows, sample_coords, sample_grid


def region_levels(boxes: Tensor, num_levels: int, finest_scale: float) -> Tensor:
    """Choose the level of each region: 0 below a side of ``2 * finest_scale`` pixels, 1 below twice that, and so on.

    Args:
        boxes: ``(..., 4)``, x1, y1, x2, y2 in pixels of the image.
        num_levels: number of levels.
        finest_scale: see above; the side is the root of the area.

    Returns:
        ``(...)`` int64.

    >>> region_levels(torch.tensor([[0.0, 0, 100, 100], [0, 0, 56, 224], [0, 0, 900, 900]]), 3, 56)
    tensor([0, 1, 2])
    """
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    level = torch.log2((width * height).sqrt() / finest_scale + 1e-6).floor()
    return level.nan_to_num().clamp(0, num_levels - 1).long()


def pyramid_roi_align(
    feats: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int = 2,
    finest_scale: float = 56,
) -> Tensor:
    """Pool features of regions from a pyramid; differentiable in ``feats``.

    It equals ``mmdet.SingleRoIExtractor`` with mmcv's ``RoIAlign(sampling_ratio=2)`` (mean, ``aligned=True``).

    Args:
        feats: maps ``(B, C, H_l, W_l)``.
        boxes: ``(B, Q, 4)``, x1, y1, x2, y2 in pixels of the image.
        strides: pixels of the image per pixel of each map.
        output_size: ``P``.
        sampling_ratio: samples a bin and axis.
        finest_scale: see :func:`region_levels`.

    Returns:
        ``(B, Q, P * P, C)``, bins in raster order.

    Raises:
        ValueError: wrong shapes, or not one stride a map.
    """
    if boxes.dim() != 3 or boxes.shape[2] != 4 or any(feat.shape[0] != boxes.shape[0] for feat in feats):
        raise ValueError(
            f'maps of shapes {[tuple(feat.shape) for feat in feats]} and boxes {tuple(boxes.shape)}, expected '
            '(B, C, H, W) each and (B, Q, 4)'
        )
    if len(feats) != len(strides):
        raise ValueError(f'{len(feats)} maps, but {len(strides)} strides ({list(strides)}); give one stride a map')
    batch, regions = boxes.shape[:2]
    boxes = at_least_float32(boxes.detach())
    level = region_levels(boxes, len(feats), finest_scale).flatten()  # (B Q,)

    def of_level(values: Sequence[int]) -> Tensor:
        return torch.stack([boxes.new_full((), value, dtype=torch.int64) for value in values])[level]

    heights, widths = ([feat.shape[axis] for feat in feats] for axis in (2, 3))
    areas = [height * width for height, width in zip(heights, widths, strict=True)]
    starts = [sum(batch * area for area in areas[:number]) for number in range(len(feats))]
    image = torch.arange(batch, device=boxes.device).repeat_interleave(regions)
    first_pixel = of_level(starts) + image * of_level(areas)  # (B Q,)

    stride = of_level(strides)[:, None]
    first, last = (boxes.flatten(0, 1)[:, k : k + 2] / stride - 0.5 for k in (0, 2))  # (B Q, 2): x, y
    bins = (last - first) / output_size
    xs, ys = (sample_coords(first[:, axis], bins[:, axis], sampling_ratio, output_size) for axis in (0, 1))
    height, width = (of_level(sizes)[:, None, None] for sizes in (heights, widths))
    samples = sample_grid(image, ys, xs, first_pixel, height, width)
    table = torch.cat([pixel_rows(feat) for feat in feats])  # (R, C)
    pooled = bin_means(table, samples)  # (B Q P P, C)
    return pooled.reshape(batch, regions, output_size**2, table.shape[1]).to(feats[0].dtype)
