"""Protocols that run the test of a config: its data, metrics and test loop, by the runner of ``tools/test.py``."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from florence_mm.engine.runner import FlorenceRunner
from florence_mm.engine.tta import with_test_time_augmentation
from florence_mm.errors import DataError, UsageError, user_sentence
from florence_mm.registry import MODELS

from .base import OFFICIAL, OR_PARTIAL, PRESENT, DataSource, LoadedLike
from .locations import below, outputs_in
from .paper import paper_figure
from .ranks import gather, number_of_processes

# what a test needs of a config
_KEPT = ('default_scope', 'custom_imports', 'custom_hooks', 'env_cfg', 'tta_model', 'tta_pipeline', 'model')
_TESTING_HOOKS = ('class_names',)


@dataclass(frozen=True)
class ConfigTest:
    """Protocol that tests a model with the data, the metrics and the test loop of its config.

    Args:
        name: unique name.
        group: group of the table.
        metric: key of the figure that stands in the table.
        source: the data set.
        dataset: test data in place of the config's, without pipeline: read with the config's, so that any two towers
            see pictures of their size. None: the config's own.
        evaluator: metrics in place of the config's. None: the config's own.
        split: whose data and metrics of the config are used, ``'test'`` or ``'val'``.
        views: whether the config's test-time augmentation is used.
        note: what the reader of the table must know.
        size: official number of test samples; a set with another number is refused. None: any.
        allow_partial: test what is there of a set that is not complete.
        needs: protocol of :mod:`florence_mm.models.protocol` that the model has; None: any, the config being its own.
    """

    name: str
    group: str
    metric: str
    source: DataSource
    dataset: Mapping[str, Any] | None = None
    evaluator: Mapping[str, Any] | None = None
    split: str = 'test'
    views: bool = False
    note: str | None = None
    size: int | None = None
    allow_partial: bool = False
    needs: type | None = None

    @property
    def paper(self) -> float | None:
        """The paper's figure in percent."""
        return paper_figure(self.name, self.metric)

    def missing(self, data_root: str | Path) -> str | None:
        """Say in one sentence what to download and where to put it; None if the data are there."""
        return self.source.missing(data_root)

    def reads(self, data_root: str | Path) -> Sequence[Path]:
        """List the files and folders that decide the figures."""
        return self.source.paths(data_root)

    def partial(self) -> Self:
        """Return this protocol for what is there of its set; its figures say how much that is."""
        return replace(self, allow_partial=True)

    def prepare(self, data_root: str | Path) -> None:
        """Write the data where they are missing, if they are embedded."""
        self.source.write(data_root)

    def run(
        self,
        model: LoadedLike,
        data_root: str | Path,
        out_dir: str | Path,
        batch_size: int | None = None,
        num_workers: int | None = None,
        progress: Callable[[float], None] | None = None,
        **opts: Any,
    ) -> dict[str, float]:
        """Test a model.

        Args:
            model: the model.
            data_root: folder of all data sets.
            out_dir: folder for logs and predictions.
            batch_size: samples per batch; None: the config's.
            num_workers: processes that load data; None: the config's.
            progress: called with the done fraction, 0 to 1.
            **opts: options of other protocols.

        Returns:
            the metrics, and ``num_samples``; of a set that is not complete also how many it officially has.

        Raises:
            UsageError: the config has no such data or metrics.
            DataError: the set is not complete and ``allow_partial`` is off, or it has more than it should.
        """
        cfg = self.test_config(model.cfg, data_root, out_dir, batch_size, num_workers)
        module = model.model
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'florence_mm'):
            if self.views:
                cfg = with_test_time_augmentation(cfg)
                module = MODELS.build({**cfg.tta_model, 'module': module})
        number, part = 0, {}

        def check(samples: int) -> None:
            nonlocal number, part
            number, part = samples, self._part(samples, data_root)

        figures = run_test(cfg, module, out_dir, progress, check)
        measured = {key: float(value) for key, value in figures.items() if isinstance(value, (int, float))}
        return {**measured, 'num_samples': number, **part}

    def _part(self, samples: int, data_root: str | Path) -> dict[str, float]:
        if self.size is None or samples == self.size:
            return {}
        if samples < self.size and self.allow_partial:
            return {PRESENT: samples, OFFICIAL: self.size}
        raise DataError(
            f'{self.source.title} in {self.source.paths(data_root)[-1]} has {samples} samples, officially {self.size}; '
            f'restore the set as published{OR_PARTIAL if samples < self.size else ""}'
        )

    def test_config(
        self,
        cfg: Config,
        data_root: str | Path,
        out_dir: str | Path,
        batch_size: int | None = None,
        num_workers: int | None = None,
    ) -> Config:
        """Reduce a model's config to this test.

        Raises:
            UsageError: the config has no data or metrics for it.
        """
        loader, evaluator = cfg.get(f'{self.split}_dataloader'), cfg.get(f'{self.split}_evaluator')
        if loader is None or (evaluator is None and self.evaluator is None):
            raise UsageError(
                f'config {cfg.filename} has no {self.split}_dataloader and {self.split}_evaluator, which {self.name} '
                'tests with; add them or name another config'
            )
        loader = copy.deepcopy(dict(loader))
        if self.dataset is not None:
            loader['dataset'] = {**self.dataset, 'pipeline': pipeline_of(cfg, loader['dataset'])}
        if batch_size is not None:
            loader['batch_size'] = batch_size
        if num_workers is not None:
            loader['num_workers'] = num_workers
            loader['persistent_workers'] = loader.get('persistent_workers', False) and num_workers > 0
        hooks = cfg.get('default_hooks') or {}
        kept = {key: cfg[key] for key in _KEPT if cfg.get(key) is not None}
        kept.setdefault('env_cfg', {'cudnn_benchmark': False})
        return Config(
            {
                **copy.deepcopy(kept),
                'default_hooks': {key: hooks[key] for key in _TESTING_HOOKS if key in hooks},
                'test_dataloader': below(loader, data_root),
                'test_evaluator': below(outputs_in(self.evaluator or evaluator, out_dir), data_root),
                'test_cfg': dict(cfg.get('test_cfg') or {}) if self.dataset is None else {},
                'randomness': {'seed': 0},
            },
            filename=cfg.filename,
        )


def pipeline_of(cfg: Config, dataset: Mapping[str, Any]) -> list:
    """Find the pipeline of a data set, inside wrappers too.

    Raises:
        UsageError: there is none.
    """
    inner: Mapping[str, Any] | None = dataset
    while inner and 'pipeline' not in inner:
        inner = inner.get('dataset') or (inner.get('datasets') or [None])[0]
    if not inner:
        raise UsageError(
            f'config {cfg.filename}: test_dataloader.dataset has no pipeline, which prepares images; add it'
        )
    return list(inner['pipeline'])


def run_test(
    cfg: Config,
    model: nn.Module,
    out_dir: str | Path,
    progress: Callable[[float], None] | None = None,
    check: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Test a built model with a config's test data, metrics and loop; logs go to a file in ``out_dir``.

    Args:
        cfg: the config.
        model: the model.
        out_dir: folder for logs and predictions.
        progress: called with the done fraction, 0 to 1.
        check: called with the number of samples before the test; it raises an error if that is wrong.

    Raises:
        UsageError: a key of the config is unknown, or model and data do not fit together.
    """
    FlorenceRunner.check(cfg)
    runner = _QuietRunner(
        model=model,
        work_dir=str(out_dir),
        test_dataloader=cfg.test_dataloader,
        test_evaluator=cfg.test_evaluator,
        test_cfg=cfg.test_cfg,
        default_hooks=cfg.default_hooks,
        custom_hooks=cfg.get('custom_hooks'),
        env_cfg=cfg.env_cfg,
        default_scope=cfg.get('default_scope') or 'florence_mm',
        randomness=cfg.randomness,
        cfg=cfg,
    )
    if number_of_processes() > 1:
        _wait_for_all(runner)
    if progress is not None:
        runner.register_hook(_TellFraction(progress))
    if check is not None:
        runner._test_loop = runner.build_test_loop(runner._test_loop)
        check(len(runner.test_dataloader.dataset))
    return runner.test()


def _wait_for_all(runner: Runner) -> None:
    """Make sure that all processes have tested their samples before the metrics are computed together.

    An error while they are ends the evaluation, as the others then wait inside the metrics.
    """
    evaluate = runner.test_evaluator.evaluate

    def checked(size: int) -> dict:
        gather(lambda: None)
        try:
            return evaluate(size)
        except Exception as error:
            raise SystemExit(f'error: {user_sentence(error) or traceback.format_exc()}') from error

    runner.test_evaluator.evaluate = checked


class _QuietRunner(FlorenceRunner):
    """Runner that logs to its file, and to the console only warnings: the suite tells the progress."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)
        return logger


class _TellFraction(Hook):
    """Call a function with the tested fraction of the data."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell = tell

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.tell((batch_idx + 1) / len(runner.test_dataloader))
