"""Smoke runs: train any config for two steps on generated data, without its files and weights, to test it.

Data sets are replaced by a few generated samples of the same kind, for the config's own pipelines and model; its
``smoke = dict(...)`` section, if any, is merged last.
"""

import copy
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger, print_log

from florence_mm.config.check import check_config, check_whole_config
from florence_mm.config.merge import merge_options, section
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.runner import FlorenceRunner

from .detection import set_smoke_classes
from .questions import set_smoke_answers
from .regions import set_smoke_regions
from .stand_ins import generate

BATCH_SIZE = 2
STEPS = 2

# optimizer wrappers with mixed precision, and their default dtypes
_AMP = {'AmpOptimWrapper': 'float16', 'FlorenceAmpOptimWrapper': 'bfloat16'}
# beginnings of the runner's messages about its setup
_SETUP = ('-' * 60, 'Config:', 'Hooks will be executed')


class _SmokeRunner(FlorenceRunner):
    """Runner of a shortened config that logs environment, config and hooks only to the log file."""

    @staticmethod
    def check(cfg: Any) -> None:
        """Check keys and values; two iterations may end before what the config's schedules and hooks wait for."""
        check_config(cfg, whole=False)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not record.getMessage().lstrip().startswith(_SETUP))
        return logger


def smoke_config(cfg: Config, folder: str | Path) -> Config:
    """Copy a config for two training steps and a validation on generated data, on the CPU.

    The copy has batches of two, no workers, no pretrained weights (those left out are logged), one prompt per class, no
    checkpoints, one log backend, and mixed precision only in bfloat16; everything else is unchanged.

    Args:
        cfg (Config): Any config of florence_mm, mmpretrain or mmdet.
        folder (str or Path): Folder for the generated data and the run.

    Raises:
        UsageError: a data set reads files, and its type has no registered generator.
    """
    folder = Path(folder)
    cfg = copy.deepcopy(cfg)
    own = cfg.pop('smoke', {})
    cfg.work_dir = str(folder / 'work_dir')
    cfg.launcher, cfg.load_from, cfg.resume, cfg.compile = 'none', None, False, False
    cfg.pop('parallelize', None)
    for name in ('train', 'val', 'test'):
        if cfg.get(f'{name}_dataloader') is not None:
            loader = cfg[f'{name}_dataloader']
            dataset = set_smoke_classes(loader.dataset, cfg.model, cfg.get(f'{name}_evaluator'))
            dataset = set_smoke_answers(dataset, cfg.model)
            loader.dataset = generate(dataset, folder / name, f'{name}_dataloader.dataset')
            set_smoke_regions(loader.dataset, cfg.model, folder / name)
            _shrink_loader(loader, train=name == 'train')
            _set_annotations(cfg.get(f'{name}_evaluator'), loader.dataset)
    # variables that the data sets already contain; formatting them for the log would take seconds
    for key in ('train_pipeline', 'val_pipeline', 'test_pipeline', 'tta_pipeline'):
        cfg.pop(key, None)
    # one prompt a class instead of CLIP's 81
    section(cfg, 'default_hooks')['class_names'] = {'type': 'florence_mm.ClassNamesHook', 'templates': 'none'}
    if cfg.get('train_cfg') is not None:
        _set_ends(cfg.get('param_scheduler'), cfg.train_cfg)
        cfg.train_cfg = {'type': 'florence_mm.IterTrainLoop', 'max_iters': STEPS, 'val_interval': STEPS}
        _shrink_optimization(cfg)
    left_out = drop_pretrained(cfg.model, 'model')
    if left_out:
        print_log(f'smoke: random weights instead of {", ".join(left_out)}', logger='current')
    if isinstance(cfg.get('visualizer'), Mapping):
        cfg.visualizer.vis_backends = [{'type': 'LocalVisBackend'}]
    merge_options(cfg, own)
    return cfg


def run_smoke(cfg: Config, folder: str | Path) -> dict[str, Any]:
    """Check a config, train it for two steps and validate it; without training or validation, test it.

    Returns:
        dict: The metrics of the validation or test; empty if the config has neither.

    Raises:
        UsageError: a key is unknown, or a data set reads files and its type has no registered generator.
    """
    check_whole_config(cfg)
    runner = _SmokeRunner.from_cfg(smoke_config(cfg, folder))
    if runner._train_loop is None:
        metrics = runner.test()
        print_log(f'smoke: passed a test, {metrics}', logger='current')
        return metrics
    runner.train()
    loss = runner.message_hub.get_scalar('train/loss').data[0]
    steps = f'{len(loss)} steps (loss {", ".join(f"{value:.4f}" for value in loss)})'
    if runner._val_loop is None and runner._test_loop is None:
        print_log(f'smoke: passed {steps}; the config has no validation and no test', logger='current')
        return {}
    if runner._val_loop is None:
        what, metrics = 'a test', runner.test()
    else:
        history = runner.message_hub.get_info('summary/validations', [{'metrics': {}}])
        what, metrics = 'a validation', history[-1]['metrics']
    print_log(f'smoke: passed {steps} and {what}, {metrics}', logger='current')
    return metrics


def _shrink_loader(loader: dict, train: bool) -> None:
    loader.update(batch_size=BATCH_SIZE, num_workers=0, persistent_workers=False, pin_memory=False)
    for key in ('prefetch_factor', 'num_batch_per_epoch', 'multiprocessing_context', 'timeout'):
        loader.pop(key, None)
    loader['sampler'] = {'type': 'mmengine.DefaultSampler', 'shuffle': train}


def _set_annotations(evaluator: Any, dataset: dict) -> None:
    """Set ``ann_file`` of metrics to the generated annotations."""
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        if isinstance(metric, dict) and 'metrics' in metric:
            _set_annotations(metric['metrics'], dataset)
        elif isinstance(metric, dict) and metric.get('ann_file'):
            metric['ann_file'] = str(Path(dataset.get('data_root') or '') / dataset['ann_file'])


def _shrink_optimization(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    type_ = str(wrapper.get('type', '')).rsplit('.', 1)[-1]
    if type_ in _AMP and wrapper.get('dtype', _AMP[type_]) != 'bfloat16':
        # float16 is not practical on a CPU
        wrapper['type'] = 'mmengine.OptimWrapper'
        for key in ('loss_scale', 'use_fsdp', 'dtype'):
            wrapper.pop(key, None)
    hooks = cfg.default_hooks
    # checkpoints of a large model take gigabytes
    hooks['checkpoint'] = {'type': 'mmengine.CheckpointHook', 'interval': -1, 'by_epoch': False, 'save_last': False}
    hooks['logger'] = {'type': 'mmengine.LoggerHook', 'interval': 1}
    for hook in cfg.get('custom_hooks') or []:
        if isinstance(hook, dict):
            # hooks that begin after the last step raise an error
            for key in ('begin_iter', 'begin_epoch'):
                if key in hook:
                    hook[key] = 0


def _set_ends(schedulers: Any, loop: Mapping) -> None:
    """Set the end of schedulers that take it from the training loop, before that is shortened to two steps.

    Fractions of epochs are rounded up.
    """
    if isinstance(schedulers, (list, tuple)):
        for scheduler in schedulers:
            _set_ends(scheduler, loop)
    elif isinstance(schedulers, Mapping) and 'type' not in schedulers:
        # a list of schedulers for each of several optimizers
        _set_ends(list(schedulers.values()), loop)
    elif isinstance(schedulers, Mapping):
        length = loop.get('max_epochs' if schedulers.get('by_epoch', True) else 'max_iters')
        # a loop in the other unit has no length in this one; a schedule must not end before it begins
        schedulers.setdefault('end', max(length or 0, schedulers.get('begin', 0) + STEPS))
        if schedulers.get('convert_to_iter_based'):
            # an epoch of two steps cannot be divided for a warm-up
            schedulers.update({key: math.ceil(schedulers[key]) for key in ('begin', 'end') if key in schedulers})
