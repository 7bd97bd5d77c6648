"""Metrics of a config's test data with an exported file in the place of its part of the model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from florence_mm.utils.progress import ProgressLog

from .runtimes import Opened


def test_metrics(model: nn.Module, cfg: Config, kind: str, opened: Opened | None = None) -> dict[str, float]:
    """Run a config's test.

    Args:
        model: the model.
        cfg: its config, with ``test_dataloader`` and ``test_evaluator``.
        kind: kind of the part that a file replaces.
        opened: the file in its runtime; None tests the model alone.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'florence_mm'):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
        progress = ProgressLog('testing', len(loader))
        with _replaced(model, kind, opened), torch.no_grad():
            for number, batch in enumerate(loader, 1):
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
                progress.update(number)
        return {key: float(value) for key, value in evaluator.evaluate(len(loader.dataset)).items()}


test_metrics.__test__ = False  # not a test for pytest


@contextmanager
def _replaced(model: nn.Module, kind: str, opened: Opened | None) -> Iterator[None]:
    """Put a file in the place of a part of the model."""
    if opened is None:
        yield
        return

    def run(**inputs: Tensor) -> dict[str, Tensor]:
        arrays = {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in inputs.items()}
        return {name: torch.from_numpy(value) for name, value in opened.run(arrays).items()}

    replacements: dict[str, Callable] = {}
    if kind == 'image':
        replacements['extract_image_feat'] = lambda inputs: run(images=inputs)['features']
    elif kind == 'text':
        replacements['extract_text_feat'] = lambda texts: run(input_ids=model.tokenizer(texts))['features']
    elif kind == 'classifier':
        replacements['predict'] = lambda inputs, samples=None: _labelled(run(images=inputs)['scores'], samples)
    elif kind == 'answerer':
        replacements['predict'] = lambda inputs, samples: _answered(run, model, inputs, samples)
    elif kind == 'detector':
        replacements['predict'] = lambda inputs, samples, rescale=True: _detected(run, inputs, samples)
    else:
        replacements['predict'] = lambda inputs, samples: model.cls_head.predict_by_feat(
            run(images=inputs.flatten(0, 1))['scores'].log(), samples
        )
    for name, function in replacements.items():
        setattr(model, name, function)
    try:
        yield
    finally:
        for name in replacements:
            delattr(model, name)


def _labelled(scores: Tensor, samples: Sequence[Any]) -> list:
    for sample, score in zip(samples, scores, strict=True):
        sample.set_pred_score(score).set_pred_label(score.argmax())
    return list(samples)


def _answered(run: Callable[..., dict[str, Tensor]], model: nn.Module, inputs: Tensor, samples: Sequence[Any]) -> list:
    tokens, each = model.tokenize([sample.text for sample in samples]), torch.arange(len(samples))
    found = run(images=inputs, input_ids=tokens.input_ids, attention_mask=tokens.mask.long(), image_of=each)
    model.set_answers(samples, found['scores'])
    return list(samples)


def _detected(run: Callable[..., dict[str, Tensor]], inputs: Tensor, samples: Sequence[Any]) -> list:
    """Boxes in pixels of the original pictures."""
    found = run(images=inputs, sizes=torch.tensor([sample.img_shape[:2] for sample in samples]))
    for sample, dets, labels in zip(samples, found['dets'], found['labels'], strict=True):
        dets, labels = dets[labels >= 0], labels[labels >= 0]
        boxes = dets[:, :4] / dets.new_tensor(list(sample.get('scale_factor', (1.0, 1.0))) * 2)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=dets[:, 4], labels=labels)
    return list(samples)
