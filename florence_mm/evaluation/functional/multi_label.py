"""Average precision of multi-label classification.

Shape legend: ``N`` images, ``K`` classes.
"""

import torch
from torch import Tensor


def eleven_point_ap(scores: Tensor, truth: Tensor) -> float:
    """Average precision of one class as in PASCAL VOC 2007.

    The mean over the recalls 0, 0.1, ... 1 of the largest precision at that recall or a higher one
    (``VOCevalcls.m`` of the VOC 2007 devkit). Images are ranked by score, equal scores in their order; one whose score
    is NaN comes last.

    Args:
        scores: ``(N,)``, higher is better.
        truth: ``(N,)``; 1 if the image has the class, -1 if not, 0 if it is passed over.

    Returns:
        the average precision from 0 to 1; NaN if no image has the class.

    >>> round(eleven_point_ap(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, -1, 1])), 4)  # (6 + 5 * 2 / 3) / 11
    0.8485
    """
    kept = truth != 0
    scores, truth = scores[kept].double(), truth[kept]
    order = torch.where(scores.isnan(), -torch.inf, scores).argsort(descending=True, stable=True)
    right = (truth[order] > 0).double()
    if not right.any():
        return float('nan')
    found = right.cumsum(0)
    precision = found / torch.arange(1, len(right) + 1, dtype=torch.float64)
    # found / total >= t / 10 in whole numbers, as 0.1 is none in binary
    reached = (10 * found[None] >= torch.arange(11)[:, None] * right.sum()).double()  # (11, N)
    return (reached * precision).amax(1).mean().item()


def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """Mean over the classes of :func:`eleven_point_ap`; classes that no image has are left out.

    Args:
        scores: ``(N, K)``.
        truth: ``(N, K)``, as above.

    Raises:
        ValueError: the shapes differ.
    """
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise ValueError(f'scores of shape {tuple(scores.shape)} and truth of {tuple(truth.shape)} must be (N, K)')
    each = torch.tensor([eleven_point_ap(scores[:, k], truth[:, k]) for k in range(scores.shape[1])])
    return each[~each.isnan()].mean().item()
