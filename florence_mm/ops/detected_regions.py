"""Features and classes of regions from the maps and boxes of a detector, for models that read regions (UNITER).

Shape legend: ``C`` channels, ``R`` regions, ``N`` detections, ``K`` classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_area, box_iou
from .regions import region_means
from .roi_align import roi_align

#: Cells of a map along a box, from which its feature is the mean; boxes of twice as many are pooled from the next map.
CELLS = 7
#: Boxes that overlap more are one object: the scores of its classes are those of all of them.
SAME = 0.7


class FoundRegions(NamedTuple):
    """Regions that a detector found in an image, best first.

    Attributes:
        boxes: ``(R, 4)``.
        probabilities: ``(R, 1 + K)``, background first.
    """

    boxes: Tensor
    probabilities: Tensor


def pool_regions(maps: Sequence[Tensor], boxes: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
    """Pool the features of regions by RoI align of 7 x 7 bins, averaged, from the map that suits their size.

    Args:
        maps: ``(B, C, h, w)`` each, finest first; each is half as fine as the one before.
        boxes: ``(R, 4)`` of each of the B images, in pixels of the input.
        size: height and width of the input in pixels.

    Returns:
        ``(R, C)``, float32, of each image.
    """
    images = torch.cat([one.new_full((len(one), 1), number) for number, one in enumerate(boxes)])
    rois = torch.cat([images, torch.cat(list(boxes))], 1)  # (N, 5)
    levels = _levels(box_area(rois[:, 1:]).clamp(min=1e-6).sqrt(), maps, size)
    features = maps[0].new_zeros(len(rois), maps[0].shape[1], dtype=torch.float32)
    for level, one in enumerate(maps):
        rows = (levels == level).nonzero().squeeze(1)
        if len(rows):
            pooled = roi_align(one.float(), rois.index_select(0, rows), CELLS, one.shape[3] / size[1])
            features[rows] = pooled.mean((2, 3))
    return list(features.split([len(one) for one in boxes]))


def pool_whole(maps: Sequence[Tensor], size: tuple[int, int], side: int) -> Tensor:
    """Average, over a square of each input from its left top corner, the map that suits its size; the rest is padding.

    Args:
        maps: ``(B, C, h, w)`` each, finest first; each is half as fine as the one before.
        size: height and width of the input in pixels.
        side: side of the square in pixels.

    Returns:
        ``(B, C)``, float32.
    """
    one = maps[int(_levels(torch.tensor([float(side)]), maps, size))].float()
    box = torch.tensor([[0.0, 0, side, side]], device=one.device)
    cell = size[0] / one.shape[2], size[1] / one.shape[3]
    return region_means(one.flatten(0, 1), box, cell).view(one.shape[:2])


def _levels(sides: Tensor, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The map of each region by its side in pixels: one of up to 13 cells, if there is such a map."""
    stride = size[1] / maps[0].shape[3]
    return (sides / (CELLS * stride)).log2().floor().long().clamp(0, len(maps) - 1)


def choose_boxes(
    boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, threshold: float, least: int, most: int
) -> FoundRegions:
    """Choose the regions of an image among detections, and give each a distribution over classes.

    Detections that overlap by more than 0.7 are one region, that of the best: its score of a class is the best of
    theirs. The probability of background is 1 less the best score; the classes share the rest by their scores.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``, from 0 to 1.
        labels: ``(N,)``, classes from 0.
        num_classes: K.
        threshold: regions of a higher score are kept; 0.2 in UNITER.
        least: keep as many of the best nevertheless, if there are; 10 in UNITER.
        most: keep at most as many; 100 in UNITER.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    chosen, by_class = [], []
    free = torch.ones(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        if len(chosen) >= most or len(chosen) >= least and scores[row] <= threshold:
            break
        if not free[row]:
            continue
        same = free & (box_iou(boxes[row : row + 1], boxes)[0] > SAME)
        same[row] = True
        free &= ~same
        own = torch.zeros(num_classes).scatter_reduce(0, labels[same], scores[same].float(), 'amax')
        chosen.append(row)
        by_class.append(own)
    found = boxes[chosen].float().reshape(-1, 4)
    scored = torch.stack(by_class) if by_class else torch.zeros(0, num_classes)
    best = scored.amax(1, keepdim=True) if num_classes else scored
    shares = scored / scored.sum(1, keepdim=True).clamp(min=1e-12)
    return FoundRegions(found, torch.cat([1 - best, best * shares], 1))
