"""Saving predictions to a file, and drawing them on images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from florence_mm.errors import UsageError
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.predictions import draw_prediction

from .hooks.run_summary import plain


class SavePredictions(BaseMetric):
    """Write the predictions of all processes to one file, in the order of the data.

    A ``.pt`` file has a list of dicts of tensors, numbers and strings, readable by ``torch.load(weights_only=True)``; a
    ``.json`` file has lists instead of tensors.

    Args:
        path (str): The file to write.

    Raises:
        UsageError: the file name has another extension, or its folder cannot be created.
    """

    default_prefix = 'predictions'

    def __init__(self, path: str) -> None:
        super().__init__(collect_device='cpu')
        self.path = Path(path)
        if self.path.suffix not in ('.pt', '.json'):
            raise UsageError(f'--out {path} must end in .pt or .json')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f'--out {path}: the folder cannot be made ({error.strerror}); choose another') from error

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Collect the predictions of a batch, on the CPU."""
        self.results += [to_plain_data(sample) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        """Write the file; there are no metrics."""
        if self.path.suffix == '.json':
            write_atomic(self.path, json.dumps(plain(results)) + '\n')
        else:
            with replacing(self.path) as temporary:
                torch.save(results, temporary)
        print_log(f'{len(results)} predictions written to {self.path}', logger='current')
        return {}


def to_plain_data(value: Any) -> Any:
    """Convert samples, arrays and containers to dicts, CPU tensors, lists, numbers and strings."""
    if isinstance(value, BaseDataElement):
        return {key: to_plain_data(item) for key, item in (*value.metainfo_items(), *value.items())}
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        # a view would be saved with its whole batch
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(value.copy())
    if isinstance(value, (list, tuple, np.ndarray)):
        return [to_plain_data(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


class ShowPredictionsHook(Hook):
    """Draw tested images with their best classes, as PNG files named after the images.

    Args:
        folder (str): Folder of the PNG files; it is created.
        interval (int): Draw every n-th image. Defaults to 1.

    Raises:
        UsageError: the predictions have no ``pred_score``, or the data have no class names.
    """

    priority = 'LOW'

    def __init__(self, folder: str, interval: int = 1) -> None:
        self.folder = Path(folder)
        self.interval = interval

    def before_test(self, runner: Any) -> None:
        """Create the folder and reset the count of images."""
        self._count = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f'--show-dir {self.folder} cannot be made ({error.strerror}); choose another') from error

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw a batch, whose ``inputs`` are ``(3, H, W)`` uint8, as our pipelines pack them."""
        classes = (getattr(runner.test_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        for image, sample in zip(data_batch['inputs'], outputs, strict=True):
            number, self._count = self._count, self._count + 1
            if number % self.interval:
                continue
            if classes is None or 'pred_score' not in sample:
                raise UsageError('--show-dir draws class scores, but this model or data set has no classes')
            # (3, H, W) -> (H, W, 3)
            rgb = image.permute(1, 2, 0).cpu().numpy()
            label = sample.get('gt_label')
            drawn = draw_prediction(
                rgb, sample.pred_score.cpu(), classes, None if label is None else int(label.flatten()[0])
            )
            stem = Path(sample.get('img_path') or 'picture').stem
            path = self.folder / f'{number * runner.world_size + runner.rank:06d}_{stem}.png'
            save_png(drawn, path)
