"""Crops and pooled features of boxes in an image, as inputs of a classifier.

Boxes are ``(x1, y1, x2, y2)`` in pixels; a pixel covers ``[i, i + 1)``.

Shape legend: ``N`` boxes, ``C`` channels, ``H, W`` image, ``h, w`` crop or map.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_regions(
    image: Tensor, boxes: Tensor, size: tuple[int, int], context: float = 1.0, square: bool = True
) -> tuple[Tensor, Tensor]:
    """Crop boxes out of an image and resize each to ``size``.

    Bounds are rounded outwards to whole pixels, so that a crop that needs no resizing has the image's own values;
    resizing is bilinear with antialiasing.

    Args:
        image: ``(C, H, W)`` float.
        boxes: ``(N, 4)``.
        size: height and width of a crop.
        context: sides of the cropped area as a multiple of the box's, around the same centre.
        square: crop a square of the longer side, which keeps proportions if ``size`` is square; ``False``: crop the box
            itself and stretch it to ``size``.

    Returns:
        crops ``(N, C, h, w)``, 0 outside the image; and a mask ``(N, 1, h, w)``, 1 inside the image and 0 outside.

    Raises:
        ValueError: shapes or a context that do not fit.
    """
    _check(image, boxes, 'image')
    if context <= 0 or min(size) < 1:
        raise ValueError(f'context is {context} and size {tuple(size)}; both must be above 0')
    height, width = image.shape[1:]
    # one more channel marks the image
    image = torch.cat([image, image.new_ones(1, height, width)])
    crops = image.new_zeros(len(boxes), len(image), *size)
    for crop, (x1, y1, x2, y2) in zip(crops, boxes.tolist(), strict=True):
        sides = [max(x2 - x1, y2 - y1)] * 2 if square else [x2 - x1, y2 - y1]
        left, right = _whole_pixels((x1 + x2) / 2, context * sides[0])
        top, bottom = _whole_pixels((y1 + y2) / 2, context * sides[1])
        inside = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if inside.numel():
            padding = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
            window = F.pad(inside, padding)[None]
            crop.copy_(F.interpolate(window, size, mode='bilinear', align_corners=False, antialias=True)[0])
    return crops[:, :-1], crops[:, -1:]


def _whole_pixels(centre: float, side: float) -> tuple[int, int]:
    """First pixel of a side and the one past its last, at least one pixel apart."""
    # a box's exact bound must not gain a pixel by rounding of the sum
    first, last = math.floor(centre - side / 2 + 1e-4), math.ceil(centre + side / 2 - 1e-4)
    return first, max(last, first + 1)


def region_means(maps: Tensor, boxes: Tensor, cell: tuple[float, float]) -> Tensor:
    """Average a feature map over boxes, each cell weighted by the area that the box covers of it.

    Nothing is rounded (as in RoI pooling) or sampled (as in RoI align); the mean over a box that covers all cells is
    the mean of the map.

    Args:
        maps: ``(C, h, w)``.
        boxes: ``(N, 4)``; parts outside the map do not count; a box without area on the map takes the nearest
            cells.
        cell: height and width of a cell in pixels.

    Returns:
        ``(N, C)``.

    >>> maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> region_means(maps, torch.tensor([[0, 0, 8, 4], [2, 0, 8, 8]]), cell=(4, 4))
    tensor([[0.5000],
            [1.6667]])
    """
    _check(maps, boxes, 'map')
    boxes = boxes.to(maps.dtype)
    across = _coverage(boxes[:, 0], boxes[:, 2], cell[1], maps.shape[2])  # (N, w)
    down = _coverage(boxes[:, 1], boxes[:, 3], cell[0], maps.shape[1])  # (N, h)
    return torch.einsum('nh,nw,chw->nc', down, across, maps)


def _coverage(start: Tensor, end: Tensor, cell: float, cells: int) -> Tensor:
    """The fraction of each interval that lies in each cell, ``(N, cells)``; rows sum to 1."""
    least = 1e-3  # in cells: a shorter interval is widened to this
    start = (start / cell).clamp(0, cells - least)
    end = torch.maximum((end / cell).clamp(max=cells), start + least)
    edges = torch.arange(cells + 1, device=start.device, dtype=start.dtype)
    overlap = torch.minimum(end[:, None], edges[1:]) - torch.maximum(start[:, None], edges[:-1])
    overlap = overlap.clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True)


def _check(image: Tensor, boxes: Tensor, name: str) -> None:
    if image.ndim != 3 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f'the {name} has shape {tuple(image.shape)} and the boxes {tuple(boxes.shape)}; '
            'expected (C, H, W) and (N, 4)'
        )
