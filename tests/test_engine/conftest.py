import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent

import toy_project

import florence_mm  # noqa: F401
from florence_mm.engine import FlorenceRunner

_number = itertools.count()


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
