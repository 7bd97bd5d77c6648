"""Cross-domain few-shot classification, CD-FSL (arXiv 1912.07200; Florence, section 3.4 and table 4).

Random episodes of five classes with 5, 20 or 50 support images and 15 query images each; the figure is the mean
accuracy of the queries over 600 episodes with its 95 % interval. A linear head is trained in each episode: 100 epochs
of SGD, random flips in training and the mean over both sides in testing, dropout 0.5.

The paper prints "learning rate and momentum 0.9/0.0002" for CoSwin and "0.99/0.01" for the head, evidently in the other
order: here they are momentum 0.9 and 0.99, learning rate 0.0002 and 0.01. It does not state the batch; four images are
those of the benchmark's public code. The paper tunes CoSwin in each episode too; so does ``tuned=True``. By default the
backbone is frozen, so that each image is encoded once, which takes minutes instead of weeks.
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.formats.published import LabelledImages
from florence_mm.models.protocol import PoolsImages, unwrap_model
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog

from .base import LoadedLike
from .episodes import HeadTraining, draw_episode, mean_and_interval, train_heads
from .features import FeatureCache, images_digest, prepared_batches
from .on_set import OnSet
from .ranks import from_first, gather, is_first, my_part, number_of_processes
from .sets import part_of

#: Episodes that are trained together, and what a killed evaluation loses at most.
TOGETHER = 20
BACKBONE_LR, BACKBONE_MOMENTUM = 0.0002, 0.9


@dataclass(frozen=True)
class FewShotClassification(OnSet):
    """Few-shot classification on one set.

    Args:
        data: the set.
        shots: support images of each class.
        ways: classes of an episode.
        queries: query images of each class.
        episodes: number of episodes.
        seed: of the episodes and their training; the images of an episode are the same for every model.
        tuned: train the image encoder with the head, as the paper does.
        training: of the head.
    """

    shots: int = 5
    ways: int = 5
    queries: int = 15
    episodes: int = 600
    seed: int = 0
    tuned: bool = False
    training: HeadTraining = field(default_factory=HeadTraining)
    group: ClassVar[str] = 'few-shot'
    needs: ClassVar[type] = PoolsImages

    @property
    def name(self) -> str:
        """``few-shot/SET-5shot``."""
        return f'{self.group}/{self.data.name}-{self.shots}shot'

    @property
    def metric(self) -> str:
        """Key of the figure in the table."""
        return 'accuracy'

    def run(
        self,
        model: LoadedLike,
        data_root: str | Path,
        out_dir: str | Path,
        cache_dir: str | Path | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **opts: Any,
    ) -> dict[str, float]:
        """Evaluate a model; see :meth:`ZeroShotClassification.run` for the arguments.

        The accuracies are kept in ``out_dir/episodes.json``; a run that was killed goes on from there.

        Returns:
            ``accuracy``, the mean over the episodes from 0 to 1, ``interval``, half the width of its 95 % interval,
            and ``num_episodes``.

        Raises:
            UsageError: the model has no pooled image features, they are not finite, or training diverges.
            DataError: the set is missing, not complete, too small, or an image cannot be read.
        """
        data = self.data.load(data_root, 'all')
        cache = FeatureCache(model, cache_dir or Path(out_dir) / 'features', batch_size, num_workers)
        features = None if self.tuned else cache.get(data, f'{self.data.name}-all', flip=True)  # (V, N, C)
        settings = (self.name, self.ways, self.queries, self.episodes, self.seed, self.tuned, self.training)
        key = f'{cache.key} {images_digest(data.images)} {settings}'
        kept = _Episodes(Path(out_dir) / 'episodes.json', key)
        progress = ProgressLog(f'{self.name}, {self.episodes} episodes', self.episodes)
        progress.update(len(kept.accuracies))
        if features is None:
            step, work = 1, functools.partial(self._tuned_episode, model, data)
        else:
            step, work = TOGETHER, functools.partial(self._frozen_episodes, features, data.labels)
        while len(kept.accuracies) < self.episodes:
            # a group of episodes a process
            firsts = range(len(kept.accuracies), self.episodes, step)[: number_of_processes()]
            mine = firsts[my_part(len(firsts))]
            found = gather(lambda mine=mine: [work(first) for first in mine])
            kept.add([accuracy for groups in found for group in groups for accuracy in group])
            progress.update(len(kept.accuracies))
        accuracy, interval = mean_and_interval(np.array(kept.accuracies))
        return {'accuracy': accuracy, 'interval': interval, 'num_episodes': self.episodes, **part_of(data)}

    def _draw(self, labels: np.ndarray, episode: int) -> tuple[np.ndarray, np.ndarray]:
        """Support ``(W, shots)`` and query images ``(W, queries)`` of an episode."""
        drawn = draw_episode(labels, self.ways, self.shots, self.queries, (self.seed, episode))
        return drawn[:, : self.shots], drawn[:, self.shots :]

    @torch.no_grad()
    def _frozen_episodes(self, features: Tensor, labels: np.ndarray, first: int) -> list[float]:
        drawn = [self._draw(labels, e) for e in range(first, min(first + TOGETHER, self.episodes))]
        support = torch.from_numpy(np.stack([s.ravel() for s, _ in drawn]))  # (E, S)
        query = torch.from_numpy(np.stack([q.ravel() for _, q in drawn]))  # (E, Q)
        known = torch.arange(self.ways).repeat_interleave(self.shots)
        at_once = features[:, support].transpose(0, 1).contiguous()  # (E, V, S, C)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # thousands of small steps, for which threads would only wait for each other
        try:
            weight, bias = train_heads(at_once, known, self.ways, self.training, seed=self.seed * 1_000_003 + first)
        finally:
            torch.set_num_threads(threads)
        # the mean over the views of the scores is the score of the mean
        scores = torch.baddbmm(bias[:, None], features[:, query].mean(0), weight.transpose(1, 2))  # (E, Q, W)
        _require_finite(scores, self.name)
        right = scores.argmax(2) == torch.arange(self.ways).repeat_interleave(self.queries)
        return right.double().mean(1).tolist()

    def _tuned_episode(self, model: LoadedLike, data: LabelledImages, episode: int) -> list[float]:
        support, query = self._draw(data.labels, episode)
        encoder = copy.deepcopy(unwrap_model(model.model))
        inputs = _inputs(model, encoder, [data.images[i] for i in support.ravel()])  # (S, 3, H, W)
        asked = _inputs(model, encoder, [data.images[i] for i in query.ravel()])  # (Q, 3, H, W)
        torch.manual_seed(self.seed * 1_000_003 + episode)
        channels = encoder.pool_images(inputs[:1]).shape[1]
        head = nn.Linear(channels, self.ways).to(inputs.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        optimizer = _optimizer(encoder, inputs[:1], head, self.training)
        targets = torch.arange(self.ways, device=inputs.device).repeat_interleave(self.shots)
        encoder.train()
        for _ in range(self.training.epochs):
            for part in torch.randperm(len(inputs)).split(self.training.batch_size):
                flips = (torch.rand(len(part)) < 0.5).to(inputs.device)[:, None, None, None]
                x = torch.where(flips, inputs[part].flip(-1), inputs[part])
                pooled = nn.functional.dropout(encoder.pool_images(x), self.training.dropout)
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(pooled), targets[part]).backward()
                optimizer.step()
        encoder.eval()
        with torch.no_grad():
            sides = [
                torch.cat([head(encoder.pool_images(x)) for x in side.split(64)]) for side in (asked, asked.flip(-1))
            ]
        _require_finite(sides[0] + sides[1], self.name)
        right = (sides[0] + sides[1]).argmax(1).cpu() == torch.arange(self.ways).repeat_interleave(self.queries)
        return [right.double().mean().item()]


def _inputs(model: LoadedLike, encoder: nn.Module, images: list) -> Tensor:
    if not isinstance(encoder, PoolsImages):
        raise UsageError(f'{type(encoder).__name__} has no pooled image features; give a two-tower model such as UniCL')
    batches = prepared_batches(model, images, 'reading the images of an episode')
    return torch.cat([encoder.data_preprocessor(batch, False)['inputs'] for batch in batches])


def _require_finite(scores: Tensor, name: str) -> None:
    """Check that training has not diverged: of NaN the first class would be taken."""
    if not scores.isfinite().all():
        raise UsageError(f'training diverges in episodes of {name}; check the model, or scale its features down')


def _optimizer(encoder: PoolsImages, inputs: Tensor, head: nn.Linear, training: HeadTraining) -> torch.optim.Optimizer:
    """SGD of the head, and of those parameters of the model that the pooled features depend on."""
    parameters = [parameter.requires_grad_() for parameter in encoder.parameters()]
    found = torch.autograd.grad(encoder.pool_images(inputs).sum(), parameters, allow_unused=True)
    used = [parameter for parameter, gradient in zip(parameters, found, strict=True) if gradient is not None]
    return torch.optim.SGD(
        [
            {'params': used, 'lr': BACKBONE_LR, 'momentum': BACKBONE_MOMENTUM},
            {'params': head.parameters(), 'lr': training.lr, 'momentum': training.momentum},
        ]
    )


class _Episodes:
    """Accuracies of the first episodes, kept in a file as long as they are of the same features and settings."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        self.accuracies = from_first(self._read)

    def _read(self) -> list[float]:
        try:
            content = json.loads(self.file.read_bytes())
            return [float(value) for value in content['accuracies']] if content['key'] == self.key else []
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []  # there is none, or it is damaged and is made again

    def add(self, accuracies: list[float]) -> None:
        """Keep those of the next episodes."""
        self.accuracies += accuracies
        if is_first():
            write_atomic(self.file, json.dumps({'key': self.key, 'accuracies': self.accuracies}))
