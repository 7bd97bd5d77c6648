"""Settings of all tests."""

import gc
import logging
import os
import random
import sys

import forks
import fresh
import numpy as np
import pytest
import torch

import florence_mm  # noqa: F401  its patches come before any other package is imported, whichever test runs first

# small models gain nothing from threads, and two busy pools of threads on two cores wait for each other
THREADS = os.environ.get('FLORENCE_MM_TEST_THREADS', '1')
torch.set_num_threads(int(THREADS))
os.environ.setdefault('OMP_NUM_THREADS', THREADS)  # of the processes that tests start

# pytest gives its handlers to each logger that does not propagate; torch would record every step of an export for them
_TRACE = logging.getLogger('torch.__trace')
_TRACE.propagate = True
_TRACE.handlers.clear()


def pytest_collection_finish():
    """Leave what the tests have imported out of garbage collections, which data sets of mmengine ask for one by one."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A test finds the same random numbers, no default scope and an open log, whatever ran before it."""
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    DefaultScope._instance_dict.clear()
    for handler in (handler for logger in MMLogger._instance_dict.values() for handler in logger.handlers):
        # made by a test whose output was captured, which ended with it
        if isinstance(handler, logging.StreamHandler) and handler.stream is not None and handler.stream.closed:
            handler.stream = sys.stderr  # setStream would flush the closed one


@pytest.fixture
def in_child():
    """Run a function in a fork of this process, which has everything imported; returns how the fork ended."""
    return lambda work: forks.wait([forks.start(work)])[0]


@pytest.fixture
def two_processes():
    """Run a function in two forks that form a process group over gloo; both must end well."""
    return lambda work: forks.as_ranks(work, 2)


@pytest.fixture(scope='session')
def fresh_process():
    """Run code in a process that has imported torch alone; returns it, finished."""
    processes = fresh.FreshProcesses()
    yield processes.run
    processes.close()
