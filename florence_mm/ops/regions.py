"""Boxes of a picture as inputs and as features of a classifier.

Boxes are ``(x1, y1, x2, y2)`` in pixels; a pixel covers ``[i, i + 1)``.

Shape legend: ``N`` boxes, ``C`` channels, ``H, W`` picture, ``h, w`` crop or map.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_regions(
    image: Tensor, boxes: Tensor, size: tuple[int, int], context: float = 1.0, square: bool = True
) -> tuple[Tensor, Tensor]:
    """What lies in boxes, each resized to ``size``.

    A crop's bounds are rounded outwards to whole pixels, so that a crop that needs no resizing has the picture's own
    values; bilinear resizing with antialiasing does the rest.

    Args:
        image: ``(C, H, W)`` float.
        boxes: ``(N, 4)``.
        size: height and width of a crop.
        context: sides of what is cropped, as a multiple of the box's, around the same centre.
        square: crop the square on the longer side, so that things keep their proportions where ``size`` is square;
            ``False``: the box itself, stretched to ``size``.

    Returns:
        crops ``(N, C, h, w)``, 0 outside the picture; and ``(N, 1, h, w)``, 1 inside the picture and 0 outside.

    Raises:
        ValueError: shapes or a context that do not fit.
    """
    _check(image, boxes, 'image')
    if context <= 0 or min(size) < 1:
        raise ValueError(f'context is {context} and size {tuple(size)}; both must be above 0')
    height, width = image.shape[1:]
    # one more channel says what is picture
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
    """First pixel and the one past the last of a side, at least one pixel."""
    # a box's exact bound must not gain a pixel by rounding of the sum
    first, last = math.floor(centre - side / 2 + 1e-4), math.ceil(centre + side / 2 - 1e-4)
    return first, max(last, first + 1)


def region_means(maps: Tensor, boxes: Tensor, cell: tuple[float, float]) -> Tensor:
    """Means of a feature map over boxes, exact for the map as a function that is constant in each cell.

    The mean over a box that covers all cells is the mean of the map. Cells count by the area that a box covers
    of them, so nothing is rounded (as RoI pooling does) and nothing sampled (as RoI align does).

    Args:
        maps: ``(C, h, w)``.
        boxes: ``(N, 4)``; what lies outside the map does not count; a box without any area on the map takes the
            nearest cells.
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
    """``(N, cells)``: how much of each interval lies in each cell; rows add up to 1."""
    least = 1e-3  # in cells: an interval of no length is widened to this
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
