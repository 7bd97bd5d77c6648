"""Episodes of few-shot classification, and linear heads that are trained for many of them at once.

Shape legend: ``E`` episodes, ``S`` support images of an episode, ``Q`` query images, ``V`` views of an image, ``N``
images of the set, ``C`` channels, ``W`` ways (classes of an episode), ``b`` images of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.errors import DataError


@dataclass(frozen=True)
class HeadTraining:
    """How a linear head is trained in an episode.

    Args:
        epochs: passes over the support images.
        batch_size: images of a step.
        lr: learning rate of SGD.
        momentum: momentum of SGD.
        dropout: fraction of the features that are dropped in training.
    """

    epochs: int = 100
    batch_size: int = 4
    lr: float = 0.01
    momentum: float = 0.99
    dropout: float = 0.5


def draw_episode(labels: np.ndarray, ways: int, shots: int, queries: int, seed: tuple[int, ...]) -> np.ndarray:
    """Draw the images of an episode: random classes, and random different images of each.

    Args:
        labels: ``(N,)``.
        ways: W.
        shots: support images of each class.
        queries: query images of each class.
        seed: of this episode; the same for every model.

    Returns:
        indices ``(W, shots + queries)``, support images first.

    Raises:
        DataError: there are fewer classes, or too few images of one.
    """
    classes, counts = np.unique(labels, return_counts=True)
    fewest = int(counts.min()) if len(counts) else 0
    if len(classes) < ways or fewest < shots + queries:
        raise DataError(
            f'the set has {len(classes)} classes with at least {fewest} images; an episode needs {ways} '
            f'with {shots} + {queries}, so restore the whole set or take fewer shots'
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(classes)[:ways]
    return np.stack([rng.permutation(np.flatnonzero(labels == label))[: shots + queries] for label in chosen])


def train_heads(support: Tensor, labels: Tensor, ways: int, training: HeadTraining, seed: int) -> tuple[Tensor, Tensor]:
    """Train a linear head for each of several episodes, all at once, with cross-entropy and SGD from zero.

    Each head is what SGD would give for its episode alone. In each step a random view of an image is taken.

    Args:
        support: ``(E, V, S, C)``.
        labels: ``(S,)``, the class in the episode, the same for all episodes.
        ways: W.
        training: settings.
        seed: of the order of images, their views and dropout.

    Returns:
        weights ``(E, W, C)`` and biases ``(E, W)``.
    """
    episodes, views, size, channels = support.shape
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.zeros(episodes, ways, channels), torch.zeros(episodes, ways)
    weight_step, bias_step = torch.zeros_like(weight), torch.zeros_like(bias)
    rows = torch.arange(episodes)[:, None]
    targets = F.one_hot(labels, ways).float()  # (S, W)
    for _ in range(training.epochs):
        order = torch.rand(episodes, size, generator=generator).argsort(1)  # (E, S)
        view = torch.randint(views, (episodes, size), generator=generator)
        for start in range(0, size, training.batch_size):
            now = slice(start, start + training.batch_size)
            x = support[rows, view[:, now], order[:, now]]  # (E, b, C)
            if training.dropout:
                kept = torch.rand(x.shape, generator=generator) >= training.dropout
                x = x * kept / (1 - training.dropout)
            scores = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))  # (E, b, W)
            # the gradient of the mean cross-entropy of a batch
            error = (scores.softmax(2) - targets[order[:, now]]) / x.shape[1]
            weight_step.mul_(training.momentum).baddbmm_(error.transpose(1, 2), x)
            bias_step.mul_(training.momentum).add_(error.sum(1))
            weight.sub_(weight_step, alpha=training.lr)
            bias.sub_(bias_step, alpha=training.lr)
    return weight, bias


def mean_and_interval(accuracies: np.ndarray) -> tuple[float, float]:
    """Mean over the episodes, and half the width of its 95 % interval, 1.96 standard errors as in the CD-FSL benchmark.

    >>> mean_and_interval(np.array([0.5, 0.7, 0.5, 0.7]))
    (0.6, 0.098)
    """
    half = 1.96 * accuracies.std() / np.sqrt(len(accuracies))
    return round(float(accuracies.mean()), 12), round(float(half), 12)
