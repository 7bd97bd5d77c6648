import os
import signal
import time

import pytest

from florence_mm.curation.pool import run_tasks
from florence_mm.errors import DataError, UsageError


def squared(task, context):
    return task * task if context is None else (task * task, context)


def process_number():
    return os.getpid()


def waiting(task, context):
    time.sleep(task)
    return task


def failing(task, context):
    if task == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 'bad':
        raise DataError('b.tar is compressed; decompress it')
    return task


@pytest.mark.parametrize('workers', [1, 2, 9])
def test_each_task_gives_its_result_once(workers):
    assert sorted(run_tasks(squared, range(5), workers)) == [0, 1, 4, 9, 16]


def test_the_context_is_made_once_in_each_process_and_not_in_this_one():
    found = list(run_tasks(squared, range(6), 2, make_context=process_number))
    assert sorted(value for value, _ in found) == [0, 1, 4, 9, 16, 25]
    assert len({number for _, number in found} | {os.getpid()}) == 3


def test_results_come_as_tasks_end():
    assert next(run_tasks(waiting, [30.0, 0.0], 2)) == 0.0  # and the other is ended, not waited for


def test_the_death_of_a_process_is_one_sentence_that_names_its_task():
    with pytest.raises(UsageError, match='worked on die was ended by SIGKILL, as the system does when memory'):
        list(run_tasks(failing, ['fine', 'die', *['fine'] * 20], 2))


def test_the_death_of_a_process_between_two_tasks_is_the_same_sentence():
    results = run_tasks(squared, range(3), 1, make_context=process_number)
    _, process = next(results)
    os.kill(process, signal.SIGKILL)
    time.sleep(0.2)  # its end of the connection is closed
    with pytest.raises(UsageError, match='worked on 1 was ended by SIGKILL'):
        next(results)


def test_an_error_with_a_sentence_keeps_its_kind():
    with pytest.raises(DataError, match=r'^b\.tar is compressed; decompress it$'):
        list(run_tasks(failing, ['fine', 'bad', 'fine'], 2))


def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="engine='spark' is none of pool, ray"):
        run_tasks(squared, [1], 1, engine='spark')


@pytest.mark.slow
def test_ray_gives_the_same_results():
    pytest.importorskip('ray')
    assert sorted(run_tasks(squared, range(5), 2, engine='ray')) == [0, 1, 4, 9, 16]
    with pytest.raises(DataError, match=r'^b\.tar is compressed; decompress it$'):
        list(run_tasks(failing, ['fine', 'bad', 'fine'], 2, engine='ray'))
    with pytest.raises(UsageError, match='the Ray task that worked on die was lost'):
        list(run_tasks(failing, ['die'], 1, engine='ray'))
