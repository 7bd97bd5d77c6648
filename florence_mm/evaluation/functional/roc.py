"""Area under the ROC curve of scores that tell positives from negatives."""

import torch
from torch import Tensor


def roc_auc(scores: Tensor, positive: Tensor) -> float:
    """Compute the area under the ROC curve: how often a positive has a higher score than a negative.

    A pair of equal scores counts one half (Mann-Whitney).

    Args:
        scores (Tensor): ``(N,)``.
        positive (Tensor): ``(N,)`` bool.

    Raises:
        ValueError: shapes differ, a score is NaN, or there are no positives or no negatives.

    >>> roc_auc(torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False]))
    0.875
    """
    if scores.shape != positive.shape or scores.ndim != 1:
        raise ValueError(f'scores {tuple(scores.shape)} and positive {tuple(positive.shape)} must be (N,) both')
    if scores.isnan().any():
        raise ValueError('a score is NaN, which is neither above nor below others')
    ones = int(positive.sum())
    zeros = len(scores) - ones
    if not ones or not zeros:
        raise ValueError(f'there are {ones} positives and {zeros} negatives; the area needs both')
    _, groups, counts = torch.unique(scores, return_inverse=True, return_counts=True)  # ascending
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[groups]  # from 1; equal scores share their mean
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
