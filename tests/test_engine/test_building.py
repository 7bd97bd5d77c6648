"""Errors of constructors and pipeline steps become one sentence; schedules shorter than an iteration are left out."""

import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import MODELS

from florence_mm.engine.building import building, tell_failing_steps
from florence_mm.engine.schedules import without_short
from florence_mm.errors import UsageError


class Part(torch.nn.Module):
    def __init__(self, width, depth=1):
        super().__init__()
        if depth == 7:
            raise NameError('a bug')
        self.ratio = width / (depth - 1)


def test_an_error_of_a_constructor_names_key_class_and_values():
    with pytest.raises(UsageError) as error, building('model'):
        MODELS.build({'type': Part, 'width': 3, 'depth': 1})
    sentence = str(error.value)
    assert sentence.startswith('model: Part does not take these values, width=3, depth=1 (ZeroDivisionError: ')
    assert '\n' not in sentence and isinstance(error.value.__cause__, ZeroDivisionError)


def test_bugs_sentences_and_memory_pass():
    with pytest.raises(NameError), building('model'):
        MODELS.build({'type': Part, 'width': 3, 'depth': 7})
    with pytest.raises(UsageError, match='^said before$'), building('model'):
        raise UsageError('said before')
    with pytest.raises(torch.OutOfMemoryError), building('model'):
        raise torch.OutOfMemoryError('full')


def needs_picture(sample):
    return {**sample, 'size': sample['picture'].shape}


def drops(sample):
    return None


def test_a_failing_step_is_named_with_what_the_sample_has():
    inner = BaseDataset(lazy_init=True)
    inner.pipeline = Compose([lambda sample: {**sample, 'b': 1}, needs_picture])

    class Wrapper:
        dataset = None

    outer = Wrapper()
    outer.dataset = inner
    tell_failing_steps(outer)
    with pytest.raises(
        UsageError, match=r'^pipeline\.1: function failed \(KeyError: picture\) on a sample that has a, b;'
    ):
        inner.pipeline({'a': 1})
    assert inner.pipeline({'picture': np.zeros((2, 3))})['size'] == (2, 3)
    inner.pipeline.transforms = [drops, needs_picture]
    assert inner.pipeline({}) is None


@pytest.mark.parametrize(
    'epoch_length, kept',
    # half an epoch of one batch is no iteration, of two batches one, which would keep the rate at a third
    [(1, ['CosineAnnealingLR']), (2, ['CosineAnnealingLR']), (4, ['LinearLR', 'CosineAnnealingLR'])],
)
def test_a_warm_up_of_no_or_one_iteration_is_left_out_and_logged(epoch_length, kept, caplog):
    schedulers = [
        {'type': 'LinearLR', 'end': 0.5, 'convert_to_iter_based': True},
        {'type': 'CosineAnnealingLR', 'begin': 0.5, 'end': 8, 'convert_to_iter_based': True},
    ]
    logger = logging.getLogger('schedules')
    with caplog.at_level(logging.WARNING, 'schedules'):
        found = without_short({'a': schedulers, 'b': schedulers[0]}, epoch_length, logger)
    assert [schedule['type'] for schedule in found['a']] == kept
    assert len(found['b']) == len(kept) - 1
    assert len(caplog.records) == 2 * (2 - len(kept))


def test_schedules_that_are_wrong_stay_for_their_own_error():
    backwards = {'type': 'LinearLR', 'begin': 5, 'end': 2, 'convert_to_iter_based': True}
    assert without_short([backwards], 1, logging.getLogger()) == [backwards]
