"""Samples a second and the share of waiting in the log."""

import json
from types import SimpleNamespace

import pytest
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub

from florence_mm.engine import dataloading
from florence_mm.engine.dataloading import BatchClock
from florence_mm.engine.hooks import ThroughputHook


@pytest.fixture
def now(monkeypatch):
    """A clock whose hands the test moves: ``now[0]``, in seconds."""
    hands = [100.0]
    monkeypatch.setattr(dataloading.time, 'perf_counter', lambda: hands[0])
    return hands


def slow(now, seconds):
    for number, wait in enumerate(seconds):
        now[0] += wait
        yield number


def test_the_clock(now):
    clock = BatchClock()
    found = []
    for number in clock.timed(slow(now, (1.0, 0.25))):
        now[0] += 2.0
        found.append((number, clock.waited, clock.since_batch()))
    assert found == [(0, 1.0, 2.0), (1, 0.25, 2.0)]


def test_the_figures_are_of_the_iterations_since_the_last_line(now):
    clock, hub = BatchClock(), MessageHub.get_instance('throughput')
    runner = SimpleNamespace(
        hooks=[LoggerHook(interval=2)],
        train_dataloader=SimpleNamespace(batch_size=6),
        train_loop=SimpleNamespace(clock=clock),
        world_size=2,
        message_hub=hub,
    )
    hook = ThroughputHook()
    hook.before_train(runner)
    found = []
    for number in clock.timed(slow(now, (3.0, 1.0, 0.0))):
        now[0] += 1.0
        hook.after_train_iter(runner, number)
        found.append(tuple(hub.get_scalar(f'train/{name}').current() for name in ('samples_per_s', 'waiting')))
        now[0] += 50.0  # a validation
    assert found == [(12 / 4, 3 / 4), (24 / 6, 4 / 6), (24 / 3, 1 / 3)]


@pytest.mark.parametrize('by_epoch', [False, True])
def test_both_are_in_the_log(train, tmp_path, by_epoch):
    train(by_epoch=by_epoch, default_hooks=dict(logger=dict(type='LoggerHook', interval=2)))
    (path,) = tmp_path.rglob('scalars.json')
    lines = [line for line in map(json.loads, path.read_text().splitlines()) if 'samples_per_s' in line]
    assert lines and all(line['samples_per_s'] > 0 and 0 <= line['waiting'] < 1 for line in lines)
