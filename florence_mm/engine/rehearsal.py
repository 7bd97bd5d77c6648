"""A rehearsal of validation with one sample, which finds metrics that cannot score it before training."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import ValLoop
from mmengine.runner.amp import autocast

from florence_mm.errors import UsageError, user_sentence
from florence_mm.models.protocol import ZeroShotModel, unwrap_model

from .building import SHOW_TRACE, in_words
from .hooks import ClassNamesHook
from .parallelize import is_sharded

_BEFORE = ('before_run', 'before_train', 'before_train_iter', 'before_val', 'before_val_epoch', 'before_val_iter')


def rehearse_validation(runner: Any) -> None:
    """Predict one sample of the validation data and give it to the metrics, which keep nothing of it.

    Nothing is done for other loops than mmengine's, sharded models, and models that predict only after hooks have
    prepared them.

    Raises:
        UsageError: the model cannot evaluate these data, or a metric cannot be given what it predicts on them.
    """
    loop = runner._val_loop
    # a subclass gives its metrics something else
    if type(loop) is not ValLoop or is_sharded(runner.model) or not hasattr(loop.dataloader.dataset, '__getitem__'):
        return
    model = unwrap_model(runner.model)
    training = model.training
    with _random_state_kept(), torch.no_grad(), autocast(enabled=loop.fp16):
        model.eval()
        try:
            batch = loop.dataloader.collate_fn([loop.dataloader.dataset[0]])
            samples = _predict(runner, model, batch)
        except Exception as error:
            if user_sentence(error) is not None:
                raise
            if any(_prepares(hook) for hook in runner.hooks):
                return
            raise UsageError(
                f'the first sample of the validation data cannot be evaluated by {type(model).__name__} '
                f'({in_words(error)}); a value of the config does not fit the model or the data, or a class of the '
                f'config has a bug; {SHOW_TRACE}'
            ) from error
        finally:
            model.train(training)
    if samples is None:
        return
    samples = [sample.to_dict() if hasattr(sample, 'to_dict') else sample for sample in samples]
    for metric in loop.evaluator.metrics:
        if not hasattr(metric, 'process_video'):  # mmdet's metrics of tracking keep more than results
            _try(metric, batch, samples, f'{type(model).__name__} predicts on {_name(loop.dataloader.dataset)}')


def _predict(runner: Any, model: torch.nn.Module, batch: Any) -> list | None:
    """Predictions of a batch; None if the model is not ready for it."""
    named = any(isinstance(hook, ClassNamesHook) for hook in runner.hooks)
    if isinstance(model, ZeroShotModel):
        classes = (getattr(runner.val_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        if not named:
            return None
        if classes:  # with one prompt each, as its templates take time and are set again
            model.set_classes(list(classes), ['{}'])
    return model.val_step(batch)


def _prepares(hook: Hook) -> bool:
    """Whether a hook of another package may prepare the model for a validation, as mmpretrain's for prototypes."""
    own = type(hook).__module__.partition('.')[0] in ('mmengine', 'florence_mm')
    return not own and any(getattr(type(hook), name) is not getattr(Hook, name) for name in _BEFORE)


def _try(metric: Any, batch: Any, samples: list, what: str) -> None:
    trial = copy.copy(metric)
    trial.results = []
    try:
        trial.process(batch, samples)
    except Exception as error:
        if user_sentence(error) is not None:
            raise
        raise UsageError(
            f'val_evaluator: {type(metric).__name__} cannot score what {what} ({in_words(error)}); change one of them; '
            f'{SHOW_TRACE}'
        ) from error


def _name(dataset: Any) -> str:
    return type(getattr(dataset, '_seeded', dataset)).__name__


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
