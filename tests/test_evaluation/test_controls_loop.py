"""Scores with exchanged pictures and without any, in the run that gives the scores."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from florence_mm.engine.predictions import SavePredictions
from florence_mm.evaluation.controls_loop import ControlledTestLoop
from florence_mm.models.multimodal.batch import FusionBatch


class Pictures(Dataset):
    """Samples whose pictures have one value each."""

    metainfo = {}  # noqa: RUF012

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, place):
        return {
            'inputs': torch.full((3, 2, 2), self.values[place]),
            'data_samples': DataSample(true=self.values[place]),
        }


def collate(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


class Teller(nn.Module):
    """It says the value of each picture."""

    def encode_image(self, inputs):
        return inputs.flatten(2).transpose(1, 2)

    def encode_tokens(self, tokens):
        return tokens

    def test_step(self, data):
        said = self.encode_image(torch.stack(data['inputs'])).mean((1, 2)).tolist()
        for sample, value in zip(data['data_samples'], said, strict=True):
            sample.set_field(value, 'said')
        return [sample.to_dict() for sample in data['data_samples']]


class Said(BaseMetric):
    default_prefix = 'said'

    def process(self, data_batch, data_samples):
        self.results += [(sample['true'], sample['said']) for sample in data_samples]

    def compute_metrics(self, results):
        return {'pairs': sorted(results)}


def run(values, batch_size, metrics, model=None, call_hook=lambda *args, **kwargs: None, **options):
    runner = SimpleNamespace(
        model=model or Teller(),
        call_hook=call_hook,
        logger=logging.getLogger('test'),
        visualizer=SimpleNamespace(),
    )
    loader = DataLoader(Pictures(values), batch_size=batch_size, collate_fn=collate)
    return ControlledTestLoop(runner, loader, Evaluator(metrics), **options).run()


def test_each_sample_is_asked_about_another_picture_and_about_none():
    # two samples of one picture, and a last batch with a single picture
    scores = run([1.0, 1.0, 2.0, 3.0, 4.0], 4, [Said()])
    assert scores['said/pairs'] == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]
    assert scores['exchanged/said/pairs'] == [(1.0, 2.0), (1.0, 2.0), (2.0, 3.0), (3.0, 1.0), (4.0, 3.0)]
    assert scores['zero/said/pairs'] == [(value, 0.0) for value in (1.0, 1.0, 2.0, 3.0, 4.0)]


@pytest.mark.parametrize(
    ('values', 'size', 'others'),
    [
        ([1.0, 1.0, 2.0, 3.0, 3.0], 4, [2.0, 2.0, 3.0, 1.0, 2.0]),  # the last batch has the last picture of the others
        ([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], 2, [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]),
        ([1.0, 1.0, 1.0, 1.0, 2.0, 3.0], 2, [2.0, 2.0, 2.0, 2.0, 3.0, 2.0]),  # the first two wait
        ([1.0, 2.0, 2.0, 3.0], 1, [2.0, 1.0, 1.0, 2.0]),
    ],
)
def test_a_batch_of_one_picture_gets_the_nearest_other_one(values, size, others):
    scores = run(values, size, [Said()], controls=['exchanged'])
    assert scores['exchanged/said/pairs'] == list(zip(values, others, strict=True))


def test_hooks_that_write_scores_get_those_of_the_controls():
    told = {}
    scores = run([1.0, 2.0], 2, [Said()], call_hook=lambda name, **given: told.setdefault(name, given))
    assert told['after_test_epoch'] == {'metrics': scores} and len(scores) == 3
    assert list(told)[:2] == ['before_test', 'before_test_epoch'] and list(told)[-1] == 'after_test'


def test_samples_alone_say_that_they_have_no_picture():
    class Listener(Teller):
        def test_step(self, data):
            for sample in data['data_samples']:
                sample.set_field(sample.get('pictured', True), 'said')
            return [sample.to_dict() for sample in data['data_samples']]

    scores = run([1.0, 2.0], 2, [Said()], Listener(), controls=['alone'])
    assert scores == {'said/pairs': [(1.0, True), (2.0, True)], 'alone/said/pairs': [(1.0, False), (2.0, False)]}
    with pytest.raises(ValueError, match='sample 0 of the batch has no picture, and METER needs one'):
        FusionBatch(type('METER', (), {})(), torch.zeros(1, 3, 2, 2), [DataSample(pictured=False)])


def test_the_model_is_left_as_it_was_and_predictions_are_its_own(tmp_path):
    model = Teller()
    scores = run([1.0, 2.0], 2, [Said(), SavePredictions(str(tmp_path / 'p.json'))], model, controls=['zero'])
    assert set(scores) == {'said/pairs', 'zero/said/pairs'}
    assert [sample['said'] for sample in json.loads((tmp_path / 'p.json').read_text())] == [1.0, 2.0]
    assert model.encode_image(torch.ones(1, 3, 2, 2)).all()


def test_what_cannot_be_controlled():
    with pytest.raises(ValueError, match="has 'zeros'; it knows exchanged, zero, alone; did you mean 'zero'"):
        run([1.0], 1, [Said()], controls=['zeros'])
    with pytest.raises(ValueError, match='a Linear, which has no image tokens'):
        run([1.0], 1, [Said()], nn.Linear(1, 1))
    with pytest.raises(
        ValueError, match='all 3 samples of the test have the same picture, which cannot be exchanged; test with'
    ):
        run([1.0, 1.0, 1.0], 2, [Said()])
