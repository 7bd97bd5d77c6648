"""Metric of answers about regions: whether they follow the region."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from florence_mm.language.labels import normalize_text
from florence_mm.language.regions import Target
from florence_mm.registry import METRICS

from .tasks import TaskMetric


@METRICS.register_module()
class MovedRegions(TaskMetric):
    """Whether an answer about a region changes when the region is moved to another object of the picture.

    Takes all pairs of regions of a picture whose annotated answers differ, after normalisation. A model that answers by
    the picture or the words of the prompt alone has 0, whatever its accuracy. Results: ``moved/changed``, the share of
    pairs with different answers, and ``moved/pairs``, their number.

    Args:
        tasks (Sequence[str]): Tasks that take a region and are answered by a text, see :class:`TaskMetric`.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'moved'

    def __init__(self, tasks: Sequence[str] = ('region_category',), **kwargs: Any) -> None:
        super().__init__(tasks, **kwargs)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the picture, the answer and the annotated one of each sample."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        for place, sample in enumerate(data_samples, before):
            if self.results[place] is not None:
                self._check(sample, 'img_path')
                self.results[place] = (sample['img_path'], *self.results[place])

    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> tuple[str, str]:
        """Both answers."""
        return normalize_text(predicted.text), normalize_text(annotated.text)

    def summary(self, results: list) -> dict[str, float]:
        """Share of pairs with different answers."""
        by_picture: dict[str, list[tuple[str, str]]] = {}
        for picture, *answers in results:
            by_picture.setdefault(picture, []).append(tuple(answers))
        pairs = [
            one[0] != other[0]
            for answers in by_picture.values()
            for one, other in combinations(answers, 2)
            if one[1] != other[1]
        ]
        return {'changed': sum(pairs) / max(len(pairs), 1), 'pairs': len(pairs)}
