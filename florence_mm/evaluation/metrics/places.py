"""Metric of answers about places of an image: whether they are right, and whether they depend on the place."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from florence_mm.registry import METRICS


@METRICS.register_module()
class PlaceAccuracy(BaseMetric):
    """Accuracy of the classes of places, with two controls; all from 0 to 1.

    Reads ``pred_places`` and ``place_labels`` of each sample, ``(Q,)`` each; places of label -1 do not count. Results:

    - ``place/accuracy``: share of the places that are classified right.
    - ``place/permuted``: the same if the queries of an image were permuted, a mean over all permutations. As an output
      depends on its query alone, permuted queries give permuted answers, and no second run is needed.
    - ``place/chance``: what right answers would have if they were permuted. A model that knows what is in the image,
      and not where, reaches no more.
    - ``place/something``: the accuracy at places where something is, if ``nothing`` is given.

    Args:
        nothing (int | None): Label of a place where nothing is.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: a sample lacks a field, or there are no places.
    """

    default_prefix = 'place'

    def __init__(self, nothing: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nothing = nothing

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the counts of each sample."""
        for sample in data_samples:
            for name in ('pred_places', 'place_labels'):
                if name not in sample:
                    raise ValueError(
                        f'a sample has no {name!r}, which PlaceAccuracy needs; pack with PackPlaces and predict with '
                        'PlaceQueryHead'
                    )
            labels = torch.as_tensor(sample['place_labels']).cpu()
            counted = labels >= 0
            labels, predicted = labels[counted], torch.as_tensor(sample['pred_places']).cpu()[counted]
            number, right = len(labels), predicted == labels
            something = labels != (-1 if self.nothing is None else self.nothing)
            each = max(number, 1)  # one answer is as probable at each place
            self.results.append(
                (
                    number,
                    int(right.sum()),
                    int((predicted[:, None] == labels).sum()) / each,
                    int((labels[:, None] == labels).sum()) / each,
                    int(something.sum()),
                    int((right & something).sum()),
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Shares of all places."""
        number, right, permuted, chance, something, found = (sum(column) for column in zip(*results, strict=True))
        if not number:
            raise ValueError('no sample has a place that counts; draw some in PackPlaces')
        scores = {'accuracy': right / number, 'permuted': permuted / number, 'chance': chance / number}
        if self.nothing is not None:
            scores['something'] = found / max(something, 1)
        return scores
