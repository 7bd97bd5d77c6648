"""Summary of a run: its metrics as JSON, and curves of its losses and scores."""

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
from florence_mm.visualization import draw_curves


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Write ``metrics.json`` after each validation, ``test_metrics.json`` after a test, ``curves.png`` after training.

    Both JSON files have ``metrics`` and ``checkpoint`` (the tested one, or the last saved); ``metrics.json`` also has
    ``iter``, ``epoch`` and ``history``, all validations of the run, also those before it was resumed. Numbers that are
    not finite are written as null, as JSON cannot represent them.
    """

    priority = 'LOWEST'

    @master_only
    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Add the validation to the history, which checkpoints store, and write it."""
        entry = {'iter': runner.iter, 'epoch': runner.epoch, 'metrics': plain(metrics or {})}
        history = [*runner.message_hub.get_info('summary/validations', []), entry]
        runner.message_hub.update_info('summary/validations', history)
        checkpoint = runner.message_hub.get_info('last_ckpt', runner._load_from)
        self._write(runner, 'metrics.json', dict(entry, checkpoint=checkpoint, history=history))

    @master_only
    def after_test_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Write the metrics of a test."""
        content = {'metrics': plain(metrics or {}), 'checkpoint': runner._load_from}
        self._write(runner, 'test_metrics.json', content)

    @master_only
    def after_train(self, runner: Any) -> None:
        """Draw the logged losses and scores."""
        try:
            draw_curves(runner.work_dir, Path(runner.work_dir) / 'curves.png', title=runner.model_name)
        except (FileNotFoundError, ValueError) as error:
            # a run without a local log backend, or shorter than the logging interval, has nothing to draw
            runner.logger.info(f'curves.png is not drawn: {error}')

    @staticmethod
    def _write(runner: Any, name: str, content: dict) -> None:
        write_atomic(Path(runner.work_dir) / name, json.dumps(content, indent=2, allow_nan=False) + '\n')


def plain(value: Any) -> Any:
    """Convert metrics for JSON: tensors, arrays and numpy numbers to lists and numbers, NaN to None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
