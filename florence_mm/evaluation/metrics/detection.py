"""Metric of detection: average precision by the protocols of COCO and LVIS."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from florence_mm.evaluation.functional.box_matching import Detections, Objects
from florence_mm.evaluation.functional.detection import (
    FREQUENCIES,
    limit_detections,
    mean_precision,
    precision_table,
    summarize,
)
from florence_mm.formats.coco import is_ignored, read_coco_file
from florence_mm.registry import METRICS
from florence_mm.utils.files import refuse_overwriting, write_atomic

_FIELDS = ('bboxes', 'scores', 'labels')


@METRICS.register_module()
class DetectionMetric(BaseMetric):
    """Average precision of boxes by the protocol of COCO or LVIS, from 0 to 1.

    COCO's protocol is also that of Objects365, Visual Genome (where AP50 is reported) and the cross-domain sets. LVIS's
    ignores detections of classes that are not annotated in the image, takes 300 detections per image, and reports rare,
    common and frequent classes separately (arXiv 1908.03195, section 2).

    Reads ``pred_instances`` (``bboxes`` ``(n, 4)`` x1, y1, x2, y2 in the original image, ``scores`` and ``labels``
    ``(n,)``) and ``img_id`` of each sample. Results: ``bbox/AP``, ``AP50``, ``AP75``, ``AP_s``, ``AP_m``, ``AP_l``
    (area to 32x32, to 96x96, above) and ``AR``; with LVIS ``AP_r``, ``AP_c``, ``AP_f``; for each of ``subsets``
    ``NAME_AP`` and ``NAME_AP50``; and ``num_skipped`` if the data set skipped images. -1 means that there are no
    such objects, as in COCO. Ground truth is the unchanged file, so that results are comparable with published ones.

    Args:
        ann_file (str | None): COCO-format ground truth. None: that of the data set (``metainfo['ann_file']``).
        style (str): 'coco' or 'lvis'.
        class_agnostic (bool): Treat all boxes, annotated and detected, as one class.
        subsets (Mapping[str, Sequence[str]] | None): Groups of classes to report, such as
            ``dict(novel=['three', 'seven'])``.
        per_class (bool): Also return ``AP_NAME`` and ``AP50_NAME`` of each class that has objects.
        table_rows (int): Most classes in the logged table, those with the lowest AP; 0 logs none.
        outfile_prefix (str | None): Write the detections in COCO's result format to ``PREFIX.bbox.json``.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: arguments contradict each other, or fit neither the data set nor the file.
    """

    default_prefix = 'bbox'

    def __init__(
        self,
        ann_file: str | None = None,
        style: str = 'coco',
        class_agnostic: bool = False,
        subsets: Mapping[str, Sequence[str]] | None = None,
        per_class: bool = False,
        table_rows: int = 20,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if style not in ('coco', 'lvis'):
            raise ValueError(f"style={style!r} of DetectionMetric must be 'coco' or 'lvis'")
        if class_agnostic and (subsets or per_class or style == 'lvis'):
            raise ValueError("class_agnostic=True of DetectionMetric has no subsets, no per_class and no style='lvis'")
        self.ann_file = ann_file
        self.style = style
        self.class_agnostic = class_agnostic
        self.subsets = {name: list(classes) for name, classes in (subsets or {}).items()}
        self.per_class = per_class
        self.table_rows = table_rows
        self.outfile_prefix = outfile_prefix
        self.max_dets = 300 if style == 'lvis' else 100

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the boxes of each sample."""
        for sample in data_samples:
            for key in ('img_id', 'pred_instances'):
                if key not in sample:
                    raise ValueError(
                        f'a sample has no `{key}`, which DetectionMetric needs; name img_id in the meta_keys of '
                        'PackDetInputs and evaluate a detector'
                    )
            found = sample['pred_instances']
            boxes, scores, labels = (torch.as_tensor(found[key]).detach().cpu() for key in _FIELDS)
            if boxes.shape != (len(labels), 4) or scores.shape != labels.shape or labels.is_floating_point():
                raise ValueError(
                    f'image {sample["img_id"]} has bboxes {tuple(boxes.shape)}, scores {tuple(scores.shape)} and '
                    f'labels {tuple(labels.shape)} of {labels.dtype}; expected (n, 4), (n,) and (n,) whole numbers'
                )
            boxes, scores, labels = boxes.double().numpy(), scores.double().numpy(), labels.numpy()
            if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
                raise ValueError(
                    f'image {sample["img_id"]} has a detection that is not finite; the weights have diverged, or the '
                    'checkpoint is of another model'
                )
            if self.style == 'lvis':
                # LVIS takes the best detections of an image over all classes
                kept = limit_detections(scores, self.max_dets)
                boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
            self.results.append((sample['img_id'], boxes, scores, labels))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        meta = self.dataset_meta or {}
        if not isinstance(meta, Mapping):  # mmdet's ConcatDataset of data sets that differ
            raise ValueError('DetectionMetric evaluates one data set and file at a time; test the sets one by one')
        path = self.ann_file or meta.get('ann_file')
        if path is None:
            raise ValueError(
                'DetectionMetric has no ground truth; give it `ann_file`, or evaluate a DetectionDataset in test mode'
            )
        truth = read_coco_file(path)
        # a sampler that pads the last batch repeats images
        results = list({result[0]: result for result in results}.values())
        category_ids = self._category_ids(truth, path, meta)
        self._check_labels(results, len(category_ids))
        if self.outfile_prefix is not None:
            refuse_overwriting(f'{self.outfile_prefix}.bbox.json', [path], 'the file of outfile_prefix')
            content = json.dumps(coco_results(results, category_ids, self.class_agnostic))
            write_atomic(f'{self.outfile_prefix}.bbox.json', content)
        truth = self._select(truth, path, results, category_ids)
        objects, detections = self._arrays(truth, results, category_ids)
        precision, recall = precision_table(objects, detections, len(truth['categories']), self.max_dets)
        scores = summarize(precision, recall)
        # axis K of the tables is ordered by category id
        places = {category['name']: i for i, category in enumerate(truth['categories'])}
        if self.style == 'lvis':
            for key, name in FREQUENCIES.items():
                group = [i for i, category in enumerate(truth['categories']) if category['frequency'] == key]
                scores[f'AP_{key}'] = mean_precision(precision[:, :, group, 0])
                self._log(f'{len(group)} {name} classes: AP {scores[f"AP_{key}"]:.4f}')
        for subset, names in self.subsets.items():
            unknown = [name for name in names if name not in places]
            if unknown or not names:
                raise ValueError(
                    f'the subset {subset!r} of DetectionMetric names {unknown or "no class"}; the classes of the data '
                    f'set are {", ".join(map(repr, list(places)[:20]))}'
                )
            of_subset = summarize(precision, recall, [places[name] for name in names])
            scores.update({f'{subset}_{key}': of_subset[key] for key in ('AP', 'AP50')})
        if not self.class_agnostic:
            self._add_classes(truth, precision, recall, scores)
        if meta.get('num_skipped'):
            scores['num_skipped'] = meta['num_skipped']
        return scores

    def _category_ids(self, truth: dict, path: str, meta: dict) -> list[int]:
        """Category ids in the order of the labels."""
        if self.class_agnostic:
            return [1]
        ids = {category['name']: category['id'] for category in truth['categories']}
        names = meta.get('classes') or sorted(ids, key=ids.__getitem__)
        unknown = [name for name in names if name not in ids]
        if unknown:
            raise ValueError(
                f'{path} has no category {unknown[0]!r}, which is a class of the data set; give both the same '
                'names, or set class_agnostic=True'
            )
        return [ids[name] for name in names]

    def _check_labels(self, results: list, num_classes: int) -> None:
        for image_id, _, _, labels in results:
            if not self.class_agnostic and len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
                label = next(label for label in labels.tolist() if not 0 <= label < num_classes)
                raise ValueError(
                    f'image {image_id} has a detection of label {label}, but the data set has {num_classes} '
                    'classes; give the head as many'
                )

    def _arrays(self, truth: dict, results: list, category_ids: list[int]) -> tuple[Objects, Detections]:
        """Annotated and detected boxes with images and classes in the order of their ids, whatever these are."""
        images = {image['id']: place for place, image in enumerate(truth['images'])}
        classes = {category['id']: place for place, category in enumerate(truth['categories'])}
        items = truth['annotations']
        objects = Objects(
            np.array([images[item['image_id']] for item in items], np.int64),
            np.array([classes[item['category_id']] for item in items], np.int64),
            np.array([item['bbox'] for item in items], np.float64).reshape(-1, 4),
            np.array([item['area'] for item in items], np.float64),
            np.array([item['iscrowd'] for item in items], bool),
        )
        results = sorted(results, key=lambda result: images[result[0]])
        none = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
        corners, scores, labels = map(np.concatenate, zip(none, *(row[1:] for row in results), strict=True))
        if self.class_agnostic:
            labels = np.zeros_like(labels)
        corners[:, 2:] -= corners[:, :2]
        detections = Detections(
            np.repeat(np.array([images[row[0]] for row in results], np.int64), [len(row[2]) for row in results]),
            np.array([classes[id_] for id_ in category_ids], np.int64)[labels],
            corners,
            scores,
            np.zeros(len(scores), bool),
        )
        if self.style == 'lvis':
            detections = self._federated(truth, classes, objects, detections)
        return objects, detections

    @staticmethod
    def _federated(truth: dict, classes: dict[int, int], objects: Objects, detections: Detections) -> Detections:
        """Leave out detections of classes not annotated in the image; excuse those of classes annotated in part."""

        def named(key: str) -> np.ndarray:
            return np.array(
                [
                    place * len(classes) + classes[id_]
                    for place, image in enumerate(truth['images'])
                    for id_ in image.get(key, ())
                    if id_ in classes
                ],
                np.int64,
            )

        annotated = np.append(named('neg_category_ids'), objects.images * len(classes) + objects.classes)
        places = detections.images * len(classes) + detections.classes
        detections.excused[:] = np.isin(places, named('not_exhaustive_category_ids'))
        return detections[np.isin(places, annotated)]

    def _select(self, truth: dict, path: str, results: list, category_ids: list[int]) -> dict:
        """Ground truth of the evaluated images and classes, categories ordered by id."""
        images = {image['id']: image for image in truth['images']}
        done = {result[0] for result in results}
        if not done <= set(images):
            raise ValueError(
                f'{path} has no image {min(done - set(images), key=str)}, which was evaluated; give its own file'
            )
        if len(done) < len(images):
            self._log(f'{path}: {len(done)} of {len(images)} images were evaluated', logging.WARNING)
        kept = set(category_ids)
        categories = sorted(truth['categories'], key=lambda category: category['id'])
        if self.class_agnostic:
            categories = [{'id': 1, 'name': 'object'}]
        elif self.style == 'lvis':
            for category in categories:
                if category.get('frequency') not in tuple(FREQUENCIES):  # a list cannot be looked up in a dict
                    raise ValueError(
                        f"{path}: the category {category['name']!r} has no frequency 'r', 'c' or 'f'; take "
                        "style='coco' for a file that is not LVIS's"
                    )
        annotations = []
        for item in truth['annotations']:
            if item['image_id'] in done and (self.class_agnostic or item['category_id'] in kept):
                # files with boxes only often lack the area
                area = item['bbox'][2] * item['bbox'][3] if item.get('area') is None else item['area']
                category_id = 1 if self.class_agnostic else item['category_id']
                annotations.append(
                    {key: item[key] for key in ('id', 'image_id', 'bbox')}
                    | {'area': area, 'iscrowd': int(is_ignored(item)), 'category_id': category_id}
                )
        return {
            'images': [images[i] for i in sorted(done)],
            'annotations': annotations,
            'categories': [category for category in categories if category['id'] in kept],
        }

    def _add_classes(self, truth: dict, precision: np.ndarray, recall: np.ndarray, scores: dict) -> None:
        """Log the table of classes, and add their scores with ``per_class``."""
        counts = dict.fromkeys((category['id'] for category in truth['categories']), 0)
        for item in truth['annotations']:
            counts[item['category_id']] += 1
        rows = []
        for place, category in enumerate(truth['categories']):
            if counts[category['id']]:
                row = summarize(precision, recall, [place])
                rows.append((category['name'], counts[category['id']], row['AP'], row['AP50']))
        if self.per_class:
            for name, _, ap, ap50 in rows:
                scores[f'AP_{name}'], scores[f'AP50_{name}'] = ap, ap50
        if self.table_rows:
            self._log(f'average precision by class\n{precision_by_class(rows, self.table_rows)}')

    @staticmethod
    def _log(message: str, level: int = logging.INFO) -> None:
        print_log(message, logger='current', level=level)


def coco_results(results: list, category_ids: Sequence[int], class_agnostic: bool = False) -> list[dict]:
    """Detections in COCO's result format, from id, corners ``(n, 4)``, scores and labels ``(n,)`` of each image."""
    return [
        {
            'image_id': image_id,
            'category_id': category_ids[0 if class_agnostic else label],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': score,
        }
        for image_id, boxes, scores, labels in results
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]


def precision_by_class(rows: Sequence[tuple[str, int, float, float]], limit: int) -> str:
    """Format a table of name, boxes, AP and AP50 of all classes, or of the ``limit`` with the lowest AP."""
    shown = rows if len(rows) <= limit else sorted(rows, key=lambda row: row[2])[:limit]
    width = max([len('class'), *(len(row[0]) for row in shown)])
    lines = [f'{"class":<{width}}   boxes      AP    AP50']
    lines += [f'{name:<{width}}  {count:6d}  {ap:.4f}  {ap50:.4f}' for name, count, ap, ap50 in shown]
    if len(shown) < len(rows):
        lines.append(f'the lowest {len(shown)} of {len(rows)} classes')
    return '\n'.join(lines)
