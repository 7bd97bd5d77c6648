import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / 'tests/test_engine'
sys.path.insert(0, str(TOY))

_number = itertools.count()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_file(config, folder) -> str:
    """The path of a config that is given as a dict or a path."""
    if not isinstance(config, dict):
        return str(config)
    path = folder / f'config_{next(_number)}.py'
    Config(config).dump(str(path))
    return str(path)


@pytest.fixture
def process(tmp_path):
    """Run a tool in another process; returns it, finished."""

    def run(name, config, *arguments, timeout=150, **environment):
        script = REPOSITORY / 'tools' / name
        line = [str(script)] if script.suffix == '.sh' else [sys.executable, str(script)]
        env = {**os.environ, 'PYTHONPATH': str(TOY), 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment}
        line += [as_file(config, tmp_path), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=env, timeout=timeout, cwd=tmp_path)

    return run


@pytest.fixture
def tool(tmp_path, monkeypatch, capfd):
    """Run a tool's main() in this process; returns exit status, standard output and standard error."""

    def run(name, config, *arguments):
        path = REPOSITORY / 'tools' / name
        spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setattr(sys, 'argv', [str(path), as_file(config, tmp_path), *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        spec.loader.exec_module(module)
        capfd.readouterr()
        status = 0
        try:
            module.main()
        except SystemExit as end:
            status = end.code or 0
        written = capfd.readouterr()
        return status, written.out, written.err

    return run
