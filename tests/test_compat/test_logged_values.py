"""Logged values stay on a GPU until one is read, and are then those that were logged."""

import pytest
import torch
from away_device import AwayDevice, send
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from florence_mm.compat import logged_values
from florence_mm.compat.gaps import GAPS


@pytest.fixture
def device():
    with AwayDevice() as device:
        yield device


def log(hub, away):
    """Log losses of four iterations, of which the second is a number."""
    for number, kind in enumerate([torch.float32, None, torch.bfloat16, torch.float32]):
        value = 1.1 * (number + 1)
        if kind is not None:
            value = send(torch.tensor([value], dtype=kind)) if away else torch.tensor([value], dtype=kind)
        hub.update_scalar('train/loss', value, count=number + 1)
        hub.update_scalar('train/time', number)
        count = torch.tensor(number)
        hub.update_scalar('train/pairs', send(count) if away else count, resumed=False)
    return hub


def histories(hub):
    return {key: [part.tolist() for part in buffer.data] for key, buffer in hub.log_scalars.items()}


def test_values_are_those_of_mmengine_in_the_same_order(device):
    plain = histories(log(MessageHub('plain'), away=False))
    assert plain['train/loss'][1] == [1, 2, 3, 4]
    hub = log(MessageHub('kept'), away=True)
    assert histories(hub) == plain
    # one wait a type: two types until a number of the same name came, then three
    assert sum(device.waits.values()) == 2 + 3
    assert 'train/pairs' not in hub.state_dict()['log_scalars']


def test_only_who_asks_for_a_value_waits(device):
    hub = MessageHub('asked')
    shared = send(torch.tensor(2.0))
    hub.update_scalar('loss', shared)
    shared.mul_(3)  # as a model does with a parameter that it logs
    hub.update_scalar('time', 0.5)
    assert hub.get_scalar('time').current() == 0.5 and not device.waits
    assert hub.get_scalar('loss').current() == 2 and sum(device.waits.values()) == 1
    with pytest.raises(KeyError, match='norm is not found'):
        hub.get_scalar('norm')


@pytest.mark.parametrize('ask', [lambda hub: hub.state_dict()['log_scalars'], lambda hub: hub.log_scalars])
def test_nothing_is_left_out_of_a_checkpoint(ask, device):
    hub = MessageHub('saved')
    hub.update_scalar('loss', send(torch.tensor(2.0)))
    assert ask(hub)['loss'].current() == 2


def test_a_run_that_never_logs_does_not_collect_without_end(device, monkeypatch):
    monkeypatch.setattr(logged_values, 'MOST_WAITING', 10)
    hub = MessageHub('long')
    for _ in range(25):
        hub.update_scalar('loss', send(torch.tensor(2.0)))
    assert sum(device.waits.values()) == 2 and len(hub.__dict__['_waiting']) == 5


def test_the_norm_of_gradients_is_logged_without_a_wait(device):
    hub = MessageHub.get_instance('norms')
    parameter = torch.nn.Parameter(send(torch.zeros(2)))
    parameter.grad = send(torch.tensor([3.0, 4.0]))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=1.0), clip_grad={'max_norm': 1.0})
    wrapper.step()
    assert not device.waits
    assert hub.get_scalar('train/grad_norm').current() == 5
    assert wrapper.clip_func is torch.nn.utils.clip_grad_norm_


def test_the_norm_of_a_cpu_is_logged_once():
    hub = MessageHub.get_instance('cpu_norms')
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    OptimWrapper(torch.optim.SGD([parameter], lr=1.0), clip_grad={'max_norm': 1.0}).step()
    assert hub.get_scalar('train/grad_norm').data[0].tolist() == [5.0]


def test_mmengine_still_waits_without_us(fresh_process):
    names = [gap.name for gap in logged_values.GAPS]
    assert [gap.state for gap in GAPS if gap.name in names] == ['patched', 'patched']
    result = fresh_process(
        """
        import torch
        from mmengine.logging import MessageHub
        MessageHub('alone').update_scalar('loss', torch.empty((), device='meta'))
        """
    )
    assert result.returncode and 'meta' in result.stderr, 'upstream no longer needs the patch; remove it'
