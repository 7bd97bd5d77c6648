import itertools
import os
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

REPOSITORY = Path(__file__).parents[2]

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
def command(in_child, tmp_path):
    """Run a tool on a toy config in a fork, as a command line does; returns how the fork ended."""

    def run(tool, config, *arguments):
        path = tmp_path / f'config_{next(_number)}.py'
        Config(config).dump(str(path))

        def work():
            sys.argv = [tool, str(path), *arguments]
            os.chdir(tmp_path)
            runpy.run_path(str(REPOSITORY / 'tools' / tool), run_name='__main__')

        return in_child(work)

    return run
