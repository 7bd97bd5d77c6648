"""Metric of zero-shot classification."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from florence_mm.evaluation.functional import check_topk, per_class_accuracy, target_ranks, topk_accuracy
from florence_mm.registry import METRICS


@METRICS.register_module()
class ZeroShotAccuracy(BaseMetric):
    """Top-k accuracy over images and mean per-class top-1 accuracy of zero-shot classification, from 0 to 1.

    Reads ``pred_score`` ``(K,)`` and ``gt_label`` ``(1,)`` of each sample. Equal scores are ordered by class index;
    a NaN score is a wrong answer. Results: ``zero_shot/top1``, ``zero_shot/top5``,
    ``zero_shot/mean_class_top1`` (over classes that have images), and ``zero_shot/num_skipped`` if the data
    set skipped images. A table of the classes is logged.

    Args:
        topk (Sequence[int]): The k of top-k accuracy.
        per_class (bool): Also return ``zero_shot/top1_NAME`` for each class that has images.
        table_rows (int): Most classes in the logged table, those with the lowest accuracy; 0 logs none.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'zero_shot'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        per_class: bool = False,
        table_rows: int = 20,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.topk = check_topk(topk, 'ZeroShotAccuracy')
        self.per_class = per_class
        self.table_rows = table_rows

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the rank of the true class and the label of each sample."""
        classes = (self.dataset_meta or {}).get('classes')
        for sample in data_samples:
            source = sample.get('source', 'a sample')
            for key, hint in (
                ('pred_score', 'give the model class names with set_classes'),
                ('gt_label', 'give the manifest a `class` column, or the data set `classes`'),
            ):
                if key not in sample:
                    raise ValueError(f'{source} has no `{key}`, which ZeroShotAccuracy needs; {hint}')
            scores = sample['pred_score']
            if classes is not None and len(scores) != len(classes):
                raise ValueError(
                    f'{source} has scores of {len(scores)} classes, but the data set has {len(classes)}; give the '
                    'model the class names of the data set'
                )
            rank = target_ranks(scores[None], sample['gt_label'].reshape(1).to(scores.device))
            self.results.append((int(rank), int(sample['gt_label']), len(scores)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        ranks, labels, sizes = torch.tensor(results, dtype=torch.int64).reshape(-1, 3).unbind(1)
        metrics = {f'top{k}': topk_accuracy(ranks, k) for k in self.topk}
        meta = self.dataset_meta or {}
        names = meta.get('classes') or [str(i) for i in range(int(sizes.max()) if len(sizes) else 0)]
        accuracy, counts = per_class_accuracy(ranks, labels, len(names))
        metrics['mean_class_top1'] = accuracy[counts > 0].mean().item()
        if self.per_class:
            metrics.update({f'top1_{names[i]}': accuracy[i].item() for i in counts.nonzero().flatten().tolist()})
        if meta.get('num_skipped'):
            metrics['num_skipped'] = meta['num_skipped']
        if self.table_rows:
            table = accuracy_table(names, accuracy, counts, self.table_rows)
            print_log(f'top-1 accuracy by class\n{table}', logger='current', level=logging.INFO)
        return metrics


def accuracy_table(names: Sequence[str], accuracy: torch.Tensor, counts: torch.Tensor, rows: int) -> str:
    """Format a table of the classes that have images, or of the ``rows`` with the lowest accuracy."""
    order = [i for i in accuracy.argsort(stable=True).tolist() if counts[i]]
    shown = sorted(order) if len(order) <= rows else order[:rows]
    width = max([len('class'), *(len(names[i]) for i in shown)])
    lines = [f'{"class":<{width}}  images  top-1']
    lines += [f'{names[i]:<{width}}  {int(counts[i]):6d}  {accuracy[i].item():.4f}' for i in shown]
    if len(shown) < len(order):
        lines.append(f'the lowest {len(shown)} of {len(order)} classes')
    return '\n'.join(lines)
