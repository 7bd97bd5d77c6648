import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / 'tests/test_engine'
sys.path.insert(0, str(TOY))

_number = itertools.count()


@pytest.fixture
def tool(tmp_path):
    """Run a tool in another process, on a config that is given as a dict or a path; returns the finished process."""

    def run(name, config, *arguments, timeout=150, **environment):
        if isinstance(config, dict):
            path = tmp_path / f'config_{next(_number)}.py'
            Config(config).dump(str(path))
            config = path
        script = REPOSITORY / 'tools' / name
        line = [str(script)] if script.suffix == '.sh' else [sys.executable, str(script)]
        env = {**os.environ, 'PYTHONPATH': str(TOY), 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment}
        line += [str(config), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=env, timeout=timeout, cwd=tmp_path)

    return run
