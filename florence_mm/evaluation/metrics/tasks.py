"""Metrics of tasks that are answered by texts with regions."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from florence_mm.evaluation.functional.regions import (
    boxes_of,
    count_boxes,
    first_hit,
    mask_overlap,
    phrase_ranks,
    summarize_counts,
    summarize_overlaps,
    written_precision,
)
from florence_mm.evaluation.functional.topk import check_topk
from florence_mm.language.labels import normalize_text
from florence_mm.language.regions import Target
from florence_mm.language.task_list import find_task
from florence_mm.registry import METRICS


class TaskMetric(BaseMetric):
    """Base class of metrics of tasks: picks the samples of its tasks, so that a mixture of tasks can be evaluated.

    Reads ``task`` (name), ``gt_target`` and ``pred_target`` (:class:`~florence_mm.language.regions.Target`) of each
    sample, and ``ori_shape`` (height, width) where pixels matter. Without a sample of its tasks it logs a warning and
    has no results.

    Args:
        tasks (Sequence[str]): Names or public marks of the tasks that are evaluated.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: a task is unknown, or a sample lacks a field.
    """

    #: whether samples need ``ori_shape``
    sized = False

    def __init__(
        self,
        tasks: Sequence[str],
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if isinstance(tasks, str) or not tasks:
            raise ValueError(f'tasks of {type(self).__name__} is {tasks!r}; give a list of at least one task')
        self.tasks = [find_task(task).name for task in tasks]

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the result of each sample; None for those of other tasks."""
        for sample in data_samples:
            self._check(sample, 'task')
            if find_task(sample['task']).name not in self.tasks:
                # several processes gather lists of equal lengths
                self.results.append(None)
                continue
            for key in ('gt_target', 'pred_target', *(('ori_shape',) if self.sized else ())):
                self._check(sample, key)
            shape = tuple(sample['ori_shape'][:2]) if self.sized else None
            annotated = self.annotated(sample)
            results = [self.result(sample['pred_target'], one, shape) for one in annotated]
            self.results.append(max(results) if len(results) > 1 else results[0])

    def _check(self, sample: dict, key: str) -> None:
        if key not in sample:
            source = sample.get('source', sample.get('img_path', 'a sample'))
            raise ValueError(
                f'{source} has no `{key}`, which {type(self).__name__} needs; evaluate a model that answers tasks on '
                'samples that are packed with PackTask'
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        results = [result for result in results if result is not None]
        if not results:
            print_log(
                f'{type(self).__name__} got no sample of {", ".join(self.tasks)} and has no results',
                logger='current',
                level=logging.WARNING,
            )
            return {}
        scores = self.summary(results)
        if (self.dataset_meta or {}).get('num_skipped'):
            scores['num_skipped'] = self.dataset_meta['num_skipped']
        return scores

    def annotated(self, sample: dict) -> list[Target]:
        """Annotated answers of a sample, of which the best result counts."""
        return [sample['gt_target']]

    @abstractmethod
    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> Any:
        """What is stored of a sample."""

    @abstractmethod
    def summary(self, results: list) -> dict[str, float]:
        """The scores from what is stored."""


@METRICS.register_module()
class TextAccuracy(TaskMetric):
    """Share of answers that are the annotated text, after normalisation (lower case, white space, full stops).

    Of several equally good texts (``texts`` of a sample) any is right.

    Results: ``answer/accuracy``, from 0 to 1.

    Args:
        tasks (Sequence[str]): See :class:`TaskMetric`.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'answer'

    def __init__(self, tasks: Sequence[str] = ('region_category',), **kwargs: Any) -> None:
        super().__init__(tasks, **kwargs)

    def annotated(self, sample: dict) -> list[Target]:
        """All equally good texts."""
        return [Target(text) for text in sample.get('texts') or [sample['gt_target'].text]]

    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> bool:
        """Whether the texts are the same."""
        return normalize_text(predicted.text) == normalize_text(annotated.text)

    def summary(self, results: list) -> dict[str, float]:
        """Share of right answers."""
        return {'accuracy': sum(results) / len(results)}


@METRICS.register_module()
class ReferringAccuracy(TaskMetric):
    """Accuracy of referring expressions: the best box has an IoU of at least 0.5 with the annotated one (REC).

    The best box is the one with the highest score of all boxes that were written, or the first one without scores,
    whatever its text; as RefCOCO's public evaluation counts it. Results: ``rec/accuracy``, from 0 to 1.

    Args:
        tasks (Sequence[str]): See :class:`TaskMetric`.
        threshold (float): Least IoU.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: the threshold is not above 0 and at most 1.
    """

    default_prefix = 'rec'

    def __init__(
        self,
        tasks: Sequence[str] = ('phrase_grounding', 'open_vocabulary_detection'),
        threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(tasks, **kwargs)
        if not 0 < threshold <= 1:
            raise ValueError(f'threshold of ReferringAccuracy is {threshold}; give an IoU above 0 and at most 1')
        self.threshold = threshold

    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> bool:
        """Whether the best box is right."""
        best, known = ([box for _, box, _ in boxes_of(target)] for target in (predicted, annotated))
        return first_hit(best[:1], known, self.threshold) is not None

    def summary(self, results: list) -> dict[str, float]:
        """Share of right boxes."""
        return {'accuracy': sum(results) / len(results)}


@METRICS.register_module()
class PhraseRecall(TaskMetric):
    """Recall of phrase grounding as on Flickr30k Entities: phrases of which one of the first k boxes is right.

    A box is right with an IoU of at least 0.5. Phrases without annotated boxes do not count. Results:
    ``grounding/R@1``, ``R@5`` and ``R@10``, from 0 to 1.

    Args:
        tasks (Sequence[str]): See :class:`TaskMetric`.
        topk (Sequence[int]): The numbers k.
        protocol (str): What a box of a phrase with several annotated boxes is compared with: ``'any'`` of them, as
            MDETR and GLIP report; or ``'merged'``, the box around all of them.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: the protocol is unknown, or the numbers are not positive.
    """

    default_prefix = 'grounding'

    def __init__(
        self,
        tasks: Sequence[str] = ('phrase_grounding',),
        topk: Sequence[int] = (1, 5, 10),
        protocol: str = 'any',
        **kwargs: Any,
    ) -> None:
        super().__init__(tasks, **kwargs)
        if protocol not in ('any', 'merged'):
            raise ValueError(f"protocol of PhraseRecall is {protocol!r}; give 'any' or 'merged'")
        self.topk = check_topk(topk, 'PhraseRecall')
        self.protocol = protocol

    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> list[int | None]:
        """Place of the first right box of each phrase."""
        with_boxes = Target(regions=tuple(region for region in annotated.regions if region.boxes))
        return phrase_ranks(predicted, with_boxes, self.protocol == 'merged')

    def summary(self, results: list) -> dict[str, float]:
        """Share of phrases whose place is below k."""
        ranks = [rank for result in results for rank in result]
        hits = {k: sum(rank is not None and rank < k for rank in ranks) for k in self.topk}
        return {f'R@{k}': count / max(len(ranks), 1) for k, count in hits.items()}


@METRICS.register_module()
class PolygonIoU(TaskMetric):
    """IoU of written outlines with annotated ones, in pixels of the original picture.

    All outlines of an answer are one mask. Results: ``segmentation/mIoU``, the mean over answers, and
    ``segmentation/oIoU``, all intersections over all unions, from 0 to 1. An answer without an outline has 0, unless
    none is annotated either.

    Args:
        tasks (Sequence[str]): See :class:`TaskMetric`.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'segmentation'
    sized = True

    def __init__(self, tasks: Sequence[str] = ('referring_segmentation', 'region_segmentation'), **kwargs: Any) -> None:
        super().__init__(tasks, **kwargs)

    def result(self, predicted: Target, annotated: Target, shape: tuple[int, int] | None) -> tuple[int, int]:
        """Pixels of intersection and union."""
        assert shape is not None
        return mask_overlap(predicted, annotated, *shape)

    def summary(self, results: list) -> dict[str, float]:
        """Mean and overall IoU."""
        return summarize_overlaps(results)


@METRICS.register_module()
class WrittenBoxes(TaskMetric):
    """Scores of boxes that were written with their class names: average precision, F1, and boxes found.

    Average precision is COCO's, with the scores of the regions; the classes are the annotated texts, compared after
    normalisation. Results, from 0 to 1: ``written/AP``, ``AP50``, ``AP75``, ``AP_s``, ``AP_m``, ``AP_l`` and ``AR``, -1
    where there are no such objects; and at an IoU of 0.5, with boxes paired one to one: ``precision``, ``recall`` and
    ``F1`` of boxes with the right text, and ``found``, the share of annotated boxes that were written with any text.
    Files with ignored regions have COCO's published figures by
    :class:`~florence_mm.evaluation.metrics.detection.DetectionMetric` alone.

    Args:
        tasks (Sequence[str]): See :class:`TaskMetric`.
        **kwargs: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'written'
    sized = True

    def __init__(self, tasks: Sequence[str] = ('detection',), **kwargs: Any) -> None:
        super().__init__(tasks, **kwargs)

    def result(
        self, predicted: Target, annotated: Target, shape: tuple[int, int] | None
    ) -> tuple[Target, Target, tuple[int, int] | None]:
        """Both targets and the size."""
        return predicted, annotated, shape

    def summary(self, results: list) -> dict[str, float]:
        """Scores over all pictures."""
        predicted, annotated, sizes = zip(*results, strict=True)
        counts = [count_boxes(*pair) for pair in zip(predicted, annotated, strict=True)]
        return {**written_precision(predicted, annotated, sizes), **summarize_counts(counts)}
