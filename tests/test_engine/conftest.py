import itertools
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent

import toy_project

import florence_mm  # noqa: F401
from florence_mm.engine import FlorenceRunner

_number = itertools.count()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(tmp_path):
    """Train the toy in this process; returns its runner. ``name`` is the work folder."""

    def run(name='run', runner=FlorenceRunner, **config):
        cfg = toy_project.toy_config(tmp_path / name, **config)
        # mmengine keeps one log and message hub a name
        cfg['experiment_name'] = f'toy_{next(_number)}'
        built = runner.from_cfg(Config(cfg))
        built.train()
        return built

    return run


@pytest.fixture(name='in_child')
def in_child_fixture():
    return in_child


@pytest.fixture
def command(tmp_path):
    """Run a tool on a toy config in another process; returns the finished process."""

    def run(tool, config, *arguments, launcher=(), timeout=120):
        path = tmp_path / f'config_{next(_number)}.py'
        Config(config).dump(str(path))
        environment = {**os.environ, 'PYTHONPATH': str(TESTS), 'OMP_NUM_THREADS': '1'}
        line = [sys.executable, *launcher, str(REPOSITORY / 'tools' / tool), str(path), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=timeout, cwd=tmp_path)

    return run


def in_child(work) -> int:
    """Run ``work`` in a fork of this process, which has everything imported; returns how the fork ended."""
    return wait_for(start_child(work))


def start_child(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def wait_for(child) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def two_processes():
    """Run a function in two forks that form a process group over gloo; both must end well."""

    def run(work):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]

        def as_rank(rank):
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
            os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
            work()

        children = [start_child(lambda rank=rank: as_rank(rank)) for rank in range(2)]
        assert [wait_for(child) for child in children] == [0, 0]

    return run
