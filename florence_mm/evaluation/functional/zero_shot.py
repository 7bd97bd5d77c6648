"""Accuracy of zero-shot classification.

Shape legend: ``N`` images, ``K`` classes.
"""

import torch
from torch import Tensor

# the rank of what cannot be ranked because of NaN: beyond every k
UNRANKED = torch.iinfo(torch.int64).max


def target_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank the true class of each image: the number of classes before it, 0 if the prediction is correct.

    Equal scores are ordered by class index, as in ``argmax``. If any score is NaN the rank is :data:`UNRANKED`, which
    no top-k counts.

    Args:
        scores (Tensor): ``(N, K)``, higher is better.
        labels (Tensor): ``(N,)`` int64, from 0 to K - 1.

    Returns:
        Tensor: ``(N,)`` int64.

    Raises:
        ValueError: shapes do not fit, or a label is outside the classes.

    >>> target_ranks(torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]]), torch.tensor([1, 0]))
    tensor([0, 2])
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f'scores of shape {tuple(scores.shape)} and labels of shape {tuple(labels.shape)} must be (N, K) and (N,)'
        )
    num_classes = scores.shape[1]
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f'labels from {int(labels.min())} to {int(labels.max())} must be within {num_classes} classes')
    target = scores.gather(1, labels[:, None])  # (N, 1)
    earlier = torch.arange(num_classes, device=scores.device) < labels[:, None]  # (N, K)
    ranks = ((scores > target) | (scores == target) & earlier).sum(1)
    return torch.where(scores.isnan().any(1), UNRANKED, ranks)


def topk_accuracy(ranks: Tensor, k: int) -> float:
    """Top-k accuracy: the fraction of ``ranks (N,)`` below ``k``; NaN without images."""
    return (ranks < k).double().mean().item()


def per_class_accuracy(ranks: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Compute the top-1 accuracy of each class.

    Args:
        ranks (Tensor): ``(N,)`` from :func:`target_ranks`.
        labels (Tensor): ``(N,)`` int64.
        num_classes (int): K.

    Returns:
        tuple[Tensor, Tensor]: ``(K,)`` float64 accuracy, NaN for a class without images, and ``(K,)`` int64
        number of images.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    right = torch.bincount(labels[ranks == 0], minlength=num_classes)
    return right.double() / counts, counts
