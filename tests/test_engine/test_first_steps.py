"""What does not fit is told in one sentence before the first iteration, or by it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_project
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import MODELS
from mmengine.runner import ValLoop
from torch import nn

from florence_mm.engine.rehearsal import rehearse_validation
from florence_mm.engine.schedules import check_followed
from florence_mm.errors import UsageError


@MODELS.register_module()
class FailingModel(toy_project.ToyModel):
    """Fails in the ``at``-th call of a mode."""

    def __init__(self, mode: str, at: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.mode, self.left = mode, at

    def forward(self, inputs, index, mode='tensor'):
        self.left -= mode == self.mode
        if self.left == 0:
            self.left = None
            return inputs + {}
        return super().forward(inputs, index, mode)


def test_a_metric_that_the_predictions_do_not_serve_is_found_before_the_first_iteration(train, tmp_path):
    with pytest.raises(UsageError, match=r'val_evaluator: Accuracy cannot score what ToyModel predicts on ToyData .*'):
        train(val_evaluator=[{'type': 'ToyMetric'}, {'type': 'mmpretrain.Accuracy'}])
    assert not list((tmp_path / 'run').glob('iter_*'))


def test_the_rehearsal_leaves_no_trace(train, monkeypatch):
    sizes = []
    compute = toy_project.ToyMetric.compute_metrics
    monkeypatch.setattr(
        toy_project.ToyMetric,
        'compute_metrics',
        lambda self, results: sizes.append(len(results)) or compute(self, results),
    )
    runner = train('validated')
    assert set(sizes) == {23}
    none = dict.fromkeys(('val_dataloader', 'val_cfg', 'val_evaluator'))
    for ours, theirs in zip(runner.trace, train('alone', **none).trace, strict=True):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1])


class Answering(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def val_step(self, batch):
        torch.rand(1), np.random.rand()
        return self.answer(batch)


class Scoring(toy_project.ToyMetric):
    def process(self, data_batch, data_samples):
        self.results.append(data_samples[0]['error'])


class Preparing(Hook):
    def before_val(self, runner):
        runner.model.prepare()


def rehearse(answer, *hooks):
    loop = object.__new__(ValLoop)
    loader = SimpleNamespace(dataset=[{'inputs': torch.zeros(2)}], collate_fn=pseudo_collate)
    loop.__dict__.update(_dataloader=loader, dataloader=loader, evaluator=Evaluator(Scoring()), fp16=False)
    rehearse_validation(SimpleNamespace(_val_loop=loop, model=Answering(answer), hooks=hooks, val_dataloader=loader))
    return loop.evaluator.metrics[0].results


def test_models_that_hooks_prepare_are_left_to_their_validation():
    assert rehearse(lambda batch: [{'error': 1}]) == []
    assert rehearse(lambda batch: batch['prototypes'], EMAHook(), Preparing()) == []
    with pytest.raises(UsageError, match='data cannot be evaluated by Answering .KeyError: prototypes.; a value'):
        rehearse(lambda batch: batch['prototypes'], EMAHook())
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with pytest.raises(
        UsageError, match='Scoring cannot score what Answering predicts on list .KeyError: error.; change'
    ):
        rehearse(lambda batch: [{'mistake': 1}])
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


def test_errors_are_told_in_the_first_iteration_and_are_traces_later(train):
    said = r'the first {} failed in FailingModel \(TypeError: .*\); a value of the config .*TRACEBACK=1'
    with pytest.raises(UsageError, match=said.format('iteration')):
        train('a', model={'type': 'FailingModel', 'mode': 'loss', 'at': 1})
    with pytest.raises(TypeError):
        train('b', model={'type': 'FailingModel', 'mode': 'loss', 'at': 2})
    # 23 samples are 6 batches, after the one of the rehearsal
    with pytest.raises(UsageError, match=said.format('validation')):
        train('c', model={'type': 'FailingModel', 'mode': 'predict', 'at': 3})
    with pytest.raises(TypeError):
        train('d', model={'type': 'FailingModel', 'mode': 'predict', 'at': 9})


@pytest.mark.parametrize('hooks', [[], [{'type': 'EMAHook'}]])
def test_the_guards_of_a_run_need_no_hook(train, monkeypatch, hooks):
    """A schedule's custom_hooks, which a user's list replaces, are not what refuses a head of other classes."""
    head = {'num_classes': 3}
    monkeypatch.setattr(
        toy_project.ToyModel, 'bbox_head', property(lambda self: SimpleNamespace(**head)), raising=False
    )
    with pytest.raises(UsageError, match='the data set has 2 classes, but the head of the detector 3; set'):
        train(custom_hooks=hooks)
    head['num_classes'] = 2
    assert train('fitting', custom_hooks=hooks).iter == 17


def test_parts_and_scores_that_are_not_there(train):
    with pytest.raises(UsageError, match="activation_checkpointing: the model has no part 'fcc'; did you mean 'fc'"):
        train('a', activation_checkpointing=['fc.0', 'fcc'])
    with pytest.raises(UsageError, match='the first validation failed in ReduceOnPlateauLR .*toy/mea'):
        train('b', by_epoch=True, param_scheduler=[{'type': 'ReduceOnPlateauLR', 'monitor': 'toy/mea'}])


def test_a_score_that_a_schedule_does_not_find():
    """mmengine takes no notice of it where the schedule has just begun."""
    schedule = SimpleNamespace(need_val_args=True, monitor='toy/mea')
    with pytest.raises(UsageError, match="SimpleNamespace follows monitor='toy/mea', which no .*mean 'toy/mae'"):
        check_followed({'adam': [schedule]}, {'toy/mae': 1.0})
    check_followed([schedule, SimpleNamespace(monitor='x')], {'toy/mea': 1.0})
    check_followed(None, {})
