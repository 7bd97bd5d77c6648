"""Test-time augmentation: predictions for several views of each image are merged."""

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from florence_mm.errors import UsageError


def with_test_time_augmentation(cfg: Config) -> Config:
    """Copy a config so that it tests with its ``tta_pipeline``, and its model inside its ``tta_model``.

    Raises:
        UsageError: one of them is missing, or the pipeline has no TestTimeAug.
    """
    absent = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if absent:
        raise UsageError(
            f'{cfg.filename} has no {" and no ".join(absent)}, which say how views of an image are made and merged; '
            'add them, as in configs/_base_/datasets/coco_detection.py, or leave --tta out'
        )
    if not any(_name(step) == 'TestTimeAug' for step in cfg.tta_pipeline):
        raise UsageError(f'{cfg.filename}: tta_pipeline has no step TestTimeAug, which makes the views; add it')
    cfg = copy.deepcopy(cfg)
    for dataset in _inner_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, 'module': cfg.model}
    return cfg


def _inner_datasets(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yield the data sets that have pipelines, inside wrappers such as ConcatDataset."""
    inner = [] if 'pipeline' in dataset else dataset.get('datasets') or [dataset.get('dataset')]
    if not any(inner):
        yield dataset
        return
    for part in inner:
        yield from _inner_datasets(part)


def _name(step: Any) -> str:
    return str(step.get('type')).rsplit('.', 1)[-1]
