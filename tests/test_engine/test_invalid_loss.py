"""When a loss that is not finite is noticed on a GPU, which is asked one iteration later."""

from types import SimpleNamespace

import pytest
import torch
from away_device import AwayDevice, send

from florence_mm.engine.hooks import InvalidLossHook
from florence_mm.errors import UsageError

NAN = torch.tensor(float('nan'))


def step(hook, iteration, **outputs):
    hook.after_train_iter(SimpleNamespace(iter=iteration - 1), 0, outputs={k: send(v) for k, v in outputs.items()})


@pytest.fixture
def device():
    with AwayDevice() as device:
        yield device


def test_a_gpu_is_not_waited_for_and_the_iteration_is_named(device):
    hook = InvalidLossHook(patience=2)
    step(hook, 7, loss=NAN, scale=torch.tensor(2.0))
    step(hook, 8, loss=torch.tensor(1.0), scale=torch.tensor([1.0, float('inf')]))
    # of iteration 7 and 8; seen during iteration 9
    with pytest.raises(
        UsageError, match='^scale was not finite in 2 iterations in a row, the last of them iteration 8;'
    ):
        step(hook, 9, loss=torch.tensor(1.0), scale=torch.tensor(1.0))
    assert not device.waits


def test_a_finite_loss_begins_the_count_again(device):
    hook = InvalidLossHook(patience=2)
    for iteration, loss in enumerate([NAN, torch.tensor(1.0), NAN, torch.tensor(1.0, dtype=torch.bfloat16)], 1):
        step(hook, iteration, loss=loss)
    hook.after_train_epoch(None)


@pytest.mark.parametrize('ends', ['after_train_epoch', 'before_val', 'before_save_checkpoint'])
def test_no_iteration_is_left_unseen(ends, device):
    hook = InvalidLossHook(patience=1)
    step(hook, 1, loss=NAN)
    arguments = {'checkpoint': {}} if ends == 'before_save_checkpoint' else {}
    with pytest.raises(UsageError, match='the last of them iteration 1;'):
        getattr(hook, ends)(SimpleNamespace(), **arguments)
    # seen once
    getattr(hook, ends)(SimpleNamespace(), **arguments)


def test_on_a_cpu_it_is_noticed_at_once():
    hook = InvalidLossHook(patience=1)
    with pytest.raises(UsageError, match='^loss, factor was not finite in 1 iterations'):
        hook.after_train_iter(SimpleNamespace(iter=4), 0, outputs={'loss': NAN, 'factor': float('inf'), 'ok': 1})


def test_a_logged_none_is_no_number(device):
    """Mmengine logs nothing for it."""
    hook = InvalidLossHook(patience=1)
    hook.after_train_iter(SimpleNamespace(iter=0), 0, outputs={'loss': torch.tensor(1.0), 'extra': None})
    hook.after_train_iter(SimpleNamespace(iter=1), 0, outputs={'extra': None, 'loss': send(NAN), 'ok': 1.0})
    with pytest.raises(UsageError, match='^loss was not finite in 1 iterations .* iteration 2;'):
        hook.after_train_epoch(None)
