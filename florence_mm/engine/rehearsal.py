"""A rehearsal of validation with one sample, which finds metrics that cannot score it before training."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.runner import ValLoop
from mmengine.runner.amp import autocast

from florence_mm.errors import UsageError, user_sentence
from florence_mm.models.protocol import ZeroShotModel, unwrap_model

from .building import SHOW_TRACE, UNFIT, in_words
from .hooks import ClassNamesHook
from .parallelize import is_sharded


def rehearse_validation(runner: Any) -> None:
    """Predict one sample of the validation data and give it to the metrics, which keep nothing of it.

    Nothing is done for other loops than mmengine's, sharded models, and models that predict only after hooks have
    prepared them.

    Raises:
        UsageError: a metric cannot be given what the model predicts on these data.
    """
    loop = runner._val_loop
    # a subclass gives its metrics something else
    if type(loop) is not ValLoop or is_sharded(runner.model) or not hasattr(loop.dataloader.dataset, '__getitem__'):
        return
    model = unwrap_model(runner.model)
    training = model.training
    with _random_state_kept(), torch.no_grad(), autocast(enabled=loop.fp16):
        batch = loop.dataloader.collate_fn([loop.dataloader.dataset[0]])
        model.eval()
        try:
            samples = _predict(runner, model, batch)
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
    try:
        return model.val_step(batch)
    except Exception as error:
        # a hook may prepare the model of another package, as mmpretrain's for prototypes
        if user_sentence(error) is None:
            return None
        raise


def _try(metric: Any, batch: Any, samples: list, what: str) -> None:
    trial = copy.copy(metric)
    trial.results = []
    try:
        trial.process(batch, samples)
    except UNFIT as error:
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
