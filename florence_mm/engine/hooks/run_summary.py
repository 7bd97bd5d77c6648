"""What a run reached, as a small file and a picture beside its checkpoints."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook

from florence_mm.registry import HOOKS
from florence_mm.utils.files import write_atomic


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Write ``metrics.json`` after each validation, ``test_metrics.json`` after a test.

    A file holds ``iter``, ``epoch``, ``checkpoint`` (the file that was tested, or the last one saved) and
    ``metrics``; that of the validation also holds ``history``, all validations of the run, resumed parts
    included. Numbers that are not finite are written as null, as JSON has no others.
    """

    priority = 'LOWEST'

    @master_only
    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Add the validation to the history, which travels with the checkpoints, and write it."""
        entry = {'iter': runner.iter, 'epoch': runner.epoch, 'metrics': plain(metrics or {})}
        history = [*runner.message_hub.get_info('summary/validations', []), entry]
        runner.message_hub.update_info('summary/validations', history)
        checkpoint = runner.message_hub.get_info('last_ckpt', runner._load_from)
        self._write(runner, 'metrics.json', dict(entry, checkpoint=checkpoint, history=history))

    @master_only
    def after_test_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Write the metrics of a test."""
        entry = {'iter': runner.iter, 'epoch': runner.epoch, 'metrics': plain(metrics or {})}
        self._write(runner, 'test_metrics.json', dict(entry, checkpoint=runner._load_from))

    @staticmethod
    def _write(runner: Any, name: str, content: dict) -> None:
        write_atomic(Path(runner.work_dir) / name, json.dumps(content, indent=2, allow_nan=False) + '\n')


def plain(value: Any) -> Any:
    """Metrics as JSON has them: tensors, arrays and numpy numbers become lists and numbers, NaN becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
