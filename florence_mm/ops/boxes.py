"""Box areas, IoU, NMS and soft NMS with the semantics of mmcv's compiled operators.

Boxes are ``(x1, y1, x2, y2)``. ``offset`` is added to ``x2 - x1`` to get a width: 0, or 1 where corners are whole
pixels that belong to the box.

Shapes: ``N``, ``M`` boxes.
"""

import numpy as np
import torch
from torch import Tensor

from .precision import at_least_float32

_BLOCK = 128  # boxes decided at a time; larger matrices leave the cache
#: how soft NMS lowers a score, in the order of mmcv's numbers for them
SOFT_METHODS = ('naive', 'linear', 'gaussian')


def box_area(boxes: Tensor, offset: float = 0) -> Tensor:
    """Areas ``(N,)`` of boxes ``(N, 4)``."""
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def box_iou(boxes: Tensor, others: Tensor, offset: float = 0) -> Tensor:
    """Intersection over union (IoU) of all pairs of boxes.

    Args:
        boxes: ``(N, 4)``.
        others: ``(M, 4)``.
        offset: added to each width and height.

    Returns:
        Tensor: ``(N, M)``; NaN for two boxes without area. Integer boxes are computed in float64, which has each
        coordinate up to 2**26 exactly.

    >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [2, 2, 6, 6], [4, 0, 8, 4]])
    >>> box_iou(boxes[:1], boxes[1:])
    tensor([[0.5000, 0.1429, 0.0000]])
    """
    if not boxes.is_floating_point() or not others.is_floating_point():
        boxes, others = boxes.double(), others.double()
    sides = []
    for low, high in ((0, 2), (1, 3)):
        side = torch.minimum(boxes[:, None, high], others[:, high])  # (N, M)
        sides.append(side.sub_(torch.maximum(boxes[:, None, low], others[:, low])).add_(offset).clamp_(min=0))
    overlap = sides[0].mul_(sides[1])
    union = (box_area(boxes, offset)[:, None] + box_area(others, offset)).sub_(overlap)
    return overlap.div_(union)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: float = 0) -> Tensor:
    """Greedy non-maximum suppression (NMS): by falling score, each kept box removes the boxes that overlap it.

    Equal scores keep the order of the input. Boxes are processed in blocks of 128: within a block the rule "keep a box
    unless a kept box with a higher score overlaps it" is repeated until nothing changes, which is the greedy result;
    the kept boxes then remove from the rest with one matrix of IoUs.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou_threshold: an IoU above it removes the box with the lower score.
        offset: added to each width and height.

    Returns:
        Tensor: int64 indices of the kept boxes, by falling score.

    Raises:
        ValueError: shapes do not fit together.

    >>> boxes = torch.tensor([[0, 0, 4, 2], [0, 0, 4, 4], [8, 8, 9, 9]])
    >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.4)
    tensor([1, 2])
    """
    _check(boxes, scores)
    order = scores.argsort(descending=True, stable=True)
    boxes = at_least_float32(boxes.detach())[order]
    kept = []
    while len(order):
        block = boxes[:_BLOCK]
        removes = box_iou(block, block, offset).gt_(iou_threshold).triu_(1)  # (n, n): row removes column
        keep = torch.ones(len(block), dtype=removes.dtype, device=boxes.device)
        while True:
            updated = (keep @ removes == 0).to(keep)
            if torch.equal(updated, keep):
                break
            keep = updated
        chosen = keep.bool()
        kept.append(order[:_BLOCK][chosen])
        order, boxes = order[_BLOCK:], boxes[_BLOCK:]
        if len(order):
            remain = ~(box_iou(block[chosen], boxes, offset) > iou_threshold).any(0)
            order, boxes = order[remain], boxes[remain]
    return torch.cat(kept) if kept else order


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = 'linear',
    offset: float = 0,
) -> tuple[Tensor, Tensor]:
    """Soft NMS (arXiv 1704.04503): a box that overlaps one with a higher score has its score lowered, not removed.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou_threshold: from this IoU on ``naive`` removes and ``linear`` lowers the score.
        sigma: ``gaussian`` multiplies by ``exp(-iou ** 2 / sigma)``.
        min_score: boxes whose lowered score is below it are dropped.
        method: one of :data:`SOFT_METHODS`.
        offset: added to each width and height.

    Returns:
        tuple: ``(K, 5)`` boxes with their new scores, and ``(K,)`` int64 indices, in order of selection.

    Raises:
        ValueError: shapes do not fit together, or an unknown method.
    """
    _check(boxes, scores)
    if method not in SOFT_METHODS:
        raise ValueError(f'method {method!r} is unknown, choose one of {", ".join(SOFT_METHODS)}')
    # a loop over single boxes: NumPy has the lower cost per call
    x1, y1, x2, y2 = boxes.detach().cpu().float().numpy().T.copy()
    score = scores.detach().cpu().float().numpy().copy()
    offset = np.float32(offset)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    index = np.arange(len(score))
    columns = (x1, y1, x2, y2, score, area, index)
    count, chosen = len(score), 0
    while chosen < count:
        best = chosen + int(score[chosen:count].argmax())
        for column in columns:
            column[[chosen, best]] = column[[best, chosen]]
        rest = slice(chosen + 1, count)
        width = np.minimum(x2[chosen], x2[rest]) - np.maximum(x1[chosen], x1[rest]) + offset
        height = np.minimum(y2[chosen], y2[rest]) - np.maximum(y1[chosen], y1[rest]) + offset
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid='ignore', divide='ignore'):  # boxes without area
            iou = overlap / (area[chosen] + area[rest] - overlap)
            score[rest] *= _factor(iou, method, np.float32(iou_threshold), np.float32(sigma))
        chosen += 1
        alive = ~(score[rest] < np.float32(min_score))
        left = int(alive.sum())
        if left < len(alive):
            # the last box left fills the first gap, as in the compiled loop; this decides between equal scores
            gaps = chosen + np.flatnonzero(~alive[:left])
            fillers = chosen + left + np.flatnonzero(alive[left:])[::-1]
            for column in columns:
                column[gaps] = column[fillers]
            count = chosen + left
    dets = torch.from_numpy(np.stack([x1, y1, x2, y2, score], 1)[:count])  # (K, 5)
    return dets.to(boxes), torch.from_numpy(index[:count]).to(boxes.device)


def _factor(iou: np.ndarray, method: str, iou_threshold: np.float32, sigma: np.float32) -> np.ndarray:
    """The factor by which each score is lowered."""
    if method == 'gaussian':
        return np.exp((-(iou * iou) / sigma).astype(np.float64)).astype(np.float32)  # rounded once, as in C
    return np.where(iou >= iou_threshold, 1 - iou if method == 'linear' else np.float32(0), np.float32(1))


def _check(boxes: Tensor, scores: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f'boxes have shape {tuple(boxes.shape)} and scores {tuple(scores.shape)}, expected (N, 4) and (N,)'
        )
