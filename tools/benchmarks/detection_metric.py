"""Speed of average precision, compared with faster-coco-eval and pycocotools.

    python tools/benchmarks/detection_metric.py [--images N] [--rounds N] [--no-pycocotools] [--out FILE]

Generated boxes in the manner of COCO's validation set: 5,000 images, 80 classes, 7.3 objects an image, of which every
hundredth is a crowd, and 100 detections an image as of a detector: several around most objects, the rest elsewhere,
with equal scores among them. All three read the ground truth from a file. Ours is `DetectionMetric` from the boxes of
each image to its scores; the peers get a list of COCO's results, whose making is not counted, and 100 detections an
image and class only (their defaults compute 1 and 10 too). The twelve numbers of COCO's summary are compared first
(1e-9). CPU time, one thread; pycocotools is run once. Exit status 1 below a bar.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from florence_mm.evaluation import DetectionMetric
from florence_mm.evaluation.functional.detection import mean_precision, precision_table
from florence_mm.evaluation.metrics.detection import coco_results
from florence_mm.utils.files import write_atomic

BARS = {'faster-coco-eval': 2.0, 'pycocotools': 10.0}
CLASSES = 80


def make_truth(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """COCO-format ground truth."""
    # as in COCO, the most frequent class has 30 % of the objects
    frequency = np.append(0.3, 0.7 * rng.dirichlet(np.full(CLASSES - 1, 0.8)))
    annotations = []
    for image in range(count):
        classes = rng.choice(CLASSES, rng.integers(1, 6), p=frequency)
        for _ in range(min(60, rng.geometric(1 / 7.3))):
            width, height = np.exp(rng.uniform(np.log(8), np.log(400), 2)).round(2).tolist()
            x, y = (rng.uniform(0, 1, 2) * (640 - width, 480 - min(height, 470))).round(2).tolist()
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image + 1,
                    'category_id': int(rng.choice(classes)) + 1,
                    'bbox': [x, y, width, height],
                    'area': width * height * rng.uniform(0.4, 1),
                    'iscrowd': int(rng.random() < 0.01),
                }
            )
    return {
        'images': [{'id': i + 1, 'file_name': f'{i}.jpg', 'width': 640, 'height': 480} for i in range(count)],
        'annotations': annotations,
        'categories': [{'id': i + 1, 'name': f'class {i}'} for i in range(CLASSES)],
    }


def make_samples(truth: dict[str, Any], rng: np.random.Generator, most: int = 100) -> list[dict]:
    """Detections of each image."""
    boxes_of: dict[int, list] = {image['id']: [] for image in truth['images']}
    for item in truth['annotations']:
        boxes_of[item['image_id']].append((*item['bbox'], item['category_id'] - 1))
    samples = []
    for image, rows in boxes_of.items():
        known = np.array(rows, np.float64).reshape(-1, 5)
        seen = known[rng.random(len(known)) < 0.85].repeat(4, axis=0)[: most // 2]
        centres, labels = seen[:, :2] + seen[:, 2:4] / 2, seen[:, 4]
        sizes = seen[:, 2:4] * np.exp(rng.normal(0, 0.15, (len(seen), 2)))
        centres += rng.normal(0, 0.08, (len(seen), 2)) * seen[:, 2:4]
        rest = most - len(seen)
        labels = np.append(labels, rng.choice(np.append(known[:, 4], [0, 1, 2, *rng.integers(0, CLASSES, 5)]), rest))
        centres = np.append(centres, rng.uniform(0, 1, (rest, 2)) * (640, 480), axis=0)
        sizes = np.append(sizes, np.exp(rng.uniform(np.log(8), np.log(400), (rest, 2))), axis=0)
        scores = np.append(rng.beta(4, 2, len(seen)), rng.beta(1, 6, rest)).round(3)
        samples.append(
            {
                'img_id': image,
                'pred_instances': {
                    'bboxes': torch.from_numpy(np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)).float(),
                    'scores': torch.from_numpy(scores).float(),
                    'labels': torch.from_numpy(labels.astype(np.int64)),
                },
            }
        )
    return samples


def ours(path: str, samples: list[dict]) -> dict[str, float]:
    """The metric, in batches of one image."""
    metric = DetectionMetric(path, table_rows=0)
    metric.dataset_meta = {}
    for sample in samples:
        metric.process(None, [sample])
    return metric.evaluate(len(samples))


def twelve_of_ours(path: str, samples: list[dict]) -> np.ndarray:
    """COCO's numbers from our tables."""
    metric = DetectionMetric(path, table_rows=0)
    metric.process(None, samples)
    truth = json.loads(Path(path).read_bytes())
    arrays = metric._arrays(truth, metric.results, list(range(1, CLASSES + 1)))
    tables = {most: precision_table(*arrays, CLASSES, most) for most in (1, 10, 100)}
    precision, recall = tables[100]
    means = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., a] for a in (1, 2, 3))]
    means += [tables[1][1][..., 0], tables[10][1][..., 0], *(recall[..., a] for a in range(4))]
    return np.array([mean_precision(values) for values in means])


def peer(name: str, path: str, results: list[dict], limits: list[int]) -> np.ndarray:
    """COCO's numbers, those of the given limits of detections an image."""
    if name == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        evaluator = COCOeval(truth, truth.loadRes([dict(one) for one in results]), 'bbox')
        evaluator.params.maxDets = limits
        evaluator.evaluate()
        evaluator.accumulate()
        if len(limits) == 3:
            evaluator.summarize()
            return np.array(evaluator.stats[:12])
        return np.asarray(evaluator.eval['precision'])


def timed(call: Callable, *args: Any) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call(*args)
    return time.process_time() - start


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Time average precision beside faster-coco-eval and pycocotools.')
    parser.add_argument('--images', type=int, default=5000, help='number of images (default: 5000)')
    parser.add_argument('--rounds', type=int, default=3, help='how often both run in turn (default: 3)')
    parser.add_argument('--no-pycocotools', action='store_true', help='leave out pycocotools, which takes minutes')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    truth = make_truth(args.images, rng)
    samples = make_samples(truth, rng)
    rows = [(sample['img_id'], *(x.double().numpy() for x in sample['pred_instances'].values())) for sample in samples]
    results = coco_results([(*row[:3], row[3].astype(int)) for row in rows], list(range(1, CLASSES + 1)))
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/truth.json'
        write_atomic(path, json.dumps(truth))
        numbers = twelve_of_ours(path, samples)
        report: dict[str, Any] = {
            'images': args.images,
            'objects': len(truth['annotations']),
            'detections': len(results),
            'AP': round(numbers[0], 6),
        }
        names = list(BARS)[: 1 if args.no_pycocotools else 2]
        for name in names:
            difference = np.abs(peer(name, path, results, [1, 10, 100]) - numbers).max()
            if difference > 1e-9:
                raise ValueError(f'the twelve numbers differ from those of {name} by {difference:.1e}; nothing timed')
            report[f'difference to {name}'] = float(difference)
        own = [timed(ours, path, samples)]
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(args.rounds):
            own.append(timed(ours, path, samples))
            for name in names[: 1 if i else 2]:
                times[name].append(timed(peer, name, path, results, [100]))
    report['ours_s'] = round(statistics.median(own[1:]), 2)
    for name in names:
        report[f'{name}_s'] = round(statistics.median(times[name]), 2)
        report[f'ratio to {name}'] = round(
            statistics.median(b / a for a, b in zip(own[1:], times[name], strict=False)), 2
        )
    print(json.dumps(report, indent=1))
    if args.out:
        write_atomic(args.out, json.dumps(report, indent=1))
    return int(any(report[f'ratio to {name}'] < BARS[name] for name in names))


if __name__ == '__main__':
    sys.exit(main())
