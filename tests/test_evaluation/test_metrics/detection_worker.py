"""Ground truth, detections of a mediocre model and their distributed evaluation."""

import json
from pathlib import Path

import numpy as np
import torch
from mmengine import dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import florence_mm  # noqa: F401
from florence_mm.evaluation import DetectionMetric

NAMES = ('ant', 'bee', 'cat', 'dog', 'emu')


def make_ground_truth(n, seed=0):
    """Boxes of all sizes and some crowds on images without and with objects; category ids have gaps."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(n):
        for _ in range(rng.integers(0, 7)):
            width, height = np.exp(rng.uniform(np.log(6), np.log(250), 2)).round(1).tolist()
            x, y = rng.uniform(0, 200, 2).round(1).tolist()
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': 10 * image,
                    'category_id': int(rng.choice([2, 3, 5, 8, 9])),
                    'bbox': [x, y, width, height],
                    'area': width * height * rng.uniform(0.5, 1),
                    'iscrowd': int(rng.random() < 0.1),
                }
            )
    return {
        'images': [{'id': 10 * i, 'file_name': f'{i}.png', 'width': 500, 'height': 500} for i in range(n)],
        'annotations': annotations,
        # not in the order of their ids
        'categories': [{'id': i, 'name': name} for i, name in reversed(list(zip((2, 3, 5, 8, 9), NAMES, strict=True)))],
    }


def make_samples(truth, seed=1):
    """Predictions: moved boxes with some wrong classes, doubled boxes, equal scores, and inventions."""
    rng = np.random.default_rng(seed)
    labels_of = {2: 0, 3: 1, 5: 2, 8: 3, 9: 4}
    samples = []
    for image in truth['images']:
        boxes, labels = [], []
        for item in truth['annotations']:
            if item['image_id'] == image['id'] and rng.random() < 0.9:
                x, y, width, height = item['bbox']
                for _ in range(rng.integers(1, 3)):
                    moved = np.array([x, y, x + width, y + height]) + rng.normal(0, 0.08, 4) * [
                        width,
                        height,
                        width,
                        height,
                    ]
                    boxes.append(moved)
                    labels.append(labels_of[item['category_id']] if rng.random() < 0.8 else rng.integers(5))
        for _ in range(rng.integers(0, 3)):
            corner = rng.uniform(0, 300, 2)
            boxes.append(np.concatenate([corner, corner + rng.uniform(5, 100, 2)]))
            labels.append(rng.integers(5))
        count = len(boxes)
        samples.append(
            {
                'img_id': image['id'],
                'pred_instances': {
                    'bboxes': torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
                    'scores': torch.tensor(rng.uniform(0, 1, count).round(1), dtype=torch.float32),
                    'labels': torch.tensor(np.array(labels, dtype=np.int64)),
                },
            }
        )
    return samples


def evaluate(path, launcher=None):
    if launcher:
        # through the module: florence_mm patches the function there
        dist.init_dist(launcher, backend='gloo')
    samples = make_samples(json.loads(Path(path).read_bytes()))
    evaluator = Evaluator(DetectionMetric(per_class=True, table_rows=0))
    evaluator.dataset_meta = {'classes': NAMES, 'ann_file': str(path), 'num_skipped': 3}
    # pads the last round, so that some samples come twice
    for index in DefaultSampler(samples, shuffle=False):
        evaluator.process([samples[index]])
    return evaluator.evaluate(len(samples))
