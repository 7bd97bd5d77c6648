"""Linear probes on frozen features by CLIP's protocol (arXiv 2103.00020, appendix A.3; Florence, table 2).

Logistic regression by scikit-learn's L-BFGS, at most 1,000 iterations, on the pooled features of the image encoder
before its projection. Its strength is searched on validation images as CLIP describes: seven values from 1e-6 to 1e6,
then the interval around the best is halved until steps of an eighth of a decade, 15 fits. The last fit is on training
and validation images together.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.logging import print_log
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from florence_mm.errors import DataError
from florence_mm.models.protocol import PoolsImages
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog

from .base import LoadedLike
from .features import FeatureCache, images_digest
from .on_set import OnSet
from .ranks import from_first
from .sets import part_of

STEPS_PER_DECADE = 8
#: The last of the 97 places of the sweep; place k is the strength ``10 ** (k / 8 - 6)``, scikit-learn's ``C``.
LAST = 12 * STEPS_PER_DECADE
MAX_ITERATIONS = 1000
#: Part of the training images that validates, in sets that are published without validation images.
VALIDATION = 0.2
_FITS = 15
#: Products in a step of a fit below which threads cost more than they save: on a busy machine they wait for each other.
_ONE_THREAD = 10_000_000


def strength(place: int) -> float:
    """Return scikit-learn's ``C``, the inverse of the penalty, at a place of the sweep."""
    return 10 ** (place / STEPS_PER_DECADE - 6)


def search_strength(score: Callable[[int], float]) -> int:
    """Find the best of the 97 places by the binary search of CLIP; of equally good ones the middle one is taken.

    Args:
        score: function from a place to the score on validation images; no place is asked for twice.

    >>> search_strength(lambda place: -abs(place - 43))
    43
    """
    tried: dict[int, float] = {}
    step, candidates = 2 * STEPS_PER_DECADE, list(range(0, LAST + 1, 2 * STEPS_PER_DECADE))
    while True:
        for place in candidates:
            if place not in tried:
                tried[place] = score(place)
        # a score that is NaN is the lowest; the number of places that tie may be even
        values = {place: -np.inf if np.isnan(value) else value for place, value in tried.items()}
        tied = sorted(place for place, value in values.items() if value == max(values.values()))
        best = tied[(len(tied) - 1) // 2]
        if step == 1:
            return best
        step //= 2
        candidates = [place for place in (best - step, best + step) if 0 <= place <= LAST]


def fit(features: np.ndarray, labels: np.ndarray, place: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a classifier.

    Args:
        features: ``(N, C)``.
        labels: ``(N,)`` from 0 on; or ``(N, K)`` of 1, -1 and 0: then a classifier for each class, of its 1 and -1.
        place: of the strength, see :func:`strength`.

    Returns:
        function from features ``(N, C)`` to scores ``(N, K)``.
    """
    if labels.ndim == 1:
        return _scores_of(_fitted(features, labels, place), int(labels.max()) + 1)
    models = []
    for truth in labels.T:
        judged, kinds = truth != 0, set(truth[truth != 0].tolist())
        # a class that all training images have, or none, cannot be learned
        models.append(_fitted(features[judged], truth[judged], place) if len(kinds) == 2 else None)

    def scores(x: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros(len(x)) if m is None else m.decision_function(x) for m in models], axis=1)

    return scores


def _fitted(features: np.ndarray, labels: np.ndarray, place: int) -> LogisticRegression:
    model = LogisticRegression(C=strength(place), max_iter=MAX_ITERATIONS, random_state=0)
    small = features.size * len(np.unique(labels)) < _ONE_THREAD
    with warnings.catch_warnings(), _threads().limit(limits=1 if small else None):
        # CLIP stops at 1,000 iterations too, converged or not
        warnings.simplefilter('ignore', ConvergenceWarning)
        return model.fit(features, labels)


@functools.cache
def _threads() -> ThreadpoolController:
    """The libraries of linear algebra and their numbers of threads."""
    return ThreadpoolController()


def _scores_of(model: LogisticRegression, num_classes: int) -> Callable[[np.ndarray], np.ndarray]:
    def scores(x: np.ndarray) -> np.ndarray:
        found = model.decision_function(x)
        if found.ndim == 1:  # of two classes scikit-learn gives one number
            found = np.stack([-found, found], axis=1)
        full = np.full((len(x), num_classes), -np.inf)
        full[:, model.classes_] = found
        return full

    return scores


def split_for_validation(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divide training images: a fifth of each class validates, drawn with a fixed seed.

    Args:
        labels: ``(N,)``.
        seed: another seed draws others.

    Returns:
        indices of the images that train and of those that validate, ascending. A class of one image trains.
    """
    rng, validating = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        validating[of_class[: round(len(of_class) * VALIDATION)]] = True
    return np.flatnonzero(~validating), np.flatnonzero(validating)


@dataclass(frozen=True)
class LinearProbe(OnSet):
    """Linear probe of a set.

    Args:
        data: the set.
        validation: published split that validates; None: a fifth of the training images (:func:`split_for_validation`).
    """

    validation: str | None = None
    group: ClassVar[str] = 'linear-probe'
    needs: ClassVar[type] = PoolsImages

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

        The scores of the sweep are kept in ``out_dir/sweep.json``; a run that was killed goes on from there.

        Returns:
            ``top1``, ``top5`` and ``mean_per_class``, or ``mAP``, from 0 to 1, on the test images; ``C``, the strength
            found; ``validation``, the metric there; and ``num_images``.

        Raises:
            UsageError: the model has no pooled image features, or they are not finite.
            DataError: the set is missing, not complete, or an image cannot be read.
        """
        cache = FeatureCache(model, cache_dir or Path(out_dir) / 'features', batch_size, num_workers)
        features, labels, keys, splits = {}, {}, [cache.key], []
        for split in ('train', *([self.validation] if self.validation else []), 'test'):
            data = self.data.load(data_root, split)
            (pooled,) = cache.get(data, f'{self.data.name}-{split}')
            features[split], labels[split] = pooled.numpy(), data.labels
            keys.append(images_digest(data.images))
            splits.append(data)
        if self.validation is None:
            train, val = split_for_validation(labels['train'])
            known = features['train'], labels['train']
            parts = [(known[0][of], known[1][of]) for of in (train, val)]
        else:
            parts = [(features[split], labels[split]) for split in ('train', self.validation)]
            known = tuple(np.concatenate(pair) for pair in zip(*parts, strict=True))
        if not len(parts[1][1]) or labels['train'].ndim == 1 and len(np.unique(parts[0][1])) < 2:
            raise DataError(f'{self.data.name} has too few training images for a linear probe; restore the whole set')
        test = features['test'], labels['test']
        # the fits need no second process
        found = from_first(lambda: self._probe(parts, known, test, Path(out_dir), ' '.join(keys)))
        return {**found, **part_of(*splits)}

    def _probe(self, parts: list, known: tuple, test: tuple, out_dir: Path, key: str) -> dict[str, float]:
        kept = _Sweep(out_dir / 'sweep.json', key)
        progress = ProgressLog(f'linear probe of {self.data.name}', _FITS + 1)
        progress.update(0)

        def score(place: int) -> float:
            if place not in kept.scores:
                kept.add(place, self._figures(fit(*parts[0], place), parts[1])[self.metric])
            progress.update(len(kept.scores))
            return kept.scores[place]

        best = search_strength(score)
        print_log(
            f'{self.name}: C {strength(best):.3g}, {self.metric} {kept.scores[best]:.4f} on validation', 'current'
        )
        figures = self._figures(fit(*known, best), test)
        return {**figures, 'C': strength(best), 'validation': kept.scores[best], 'num_images': len(test[1])}

    def _figures(self, scores_of: Callable[[np.ndarray], np.ndarray], images: tuple) -> dict[str, float]:
        features, labels = images
        scores = torch.from_numpy(scores_of(features))
        if labels.ndim == 1 and scores.shape[1] <= labels.max():  # a class that no training image has
            lacking = int(labels.max()) + 1 - scores.shape[1]
            scores = torch.nn.functional.pad(scores, (0, lacking), value=-torch.inf)
        return self.data.figures(scores, torch.from_numpy(np.ascontiguousarray(labels)))


class _Sweep:
    """Scores of a sweep by place, kept in a file as long as they are of the same features."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key, self.scores = file, key, {}
        try:
            content = json.loads(file.read_bytes())
            if content['key'] == key:
                self.scores = {int(place): float(score) for place, score in content['scores'].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            self.scores = {}  # there is none, or it is damaged and is made again

    def add(self, place: int, score: float) -> None:
        """Keep a score."""
        self.scores[place] = score
        write_atomic(self.file, json.dumps({'key': self.key, 'scores': self.scores}))
