"""``tools/bootstrap.py`` says in one sentence what keeps it from making the environment."""

import errno
import importlib.util
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / 'tools/bootstrap.py'
Usage = namedtuple('Usage', 'total used free')
GIB = 2**30


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The module, with an empty checkout whose environment no step really makes."""
    spec = importlib.util.spec_from_file_location('bootstrap_under_test', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', ['bootstrap.py'])
    monkeypatch.setattr(module, 'ROOT', str(tmp_path))
    monkeypatch.setattr(module, 'VENV', str(tmp_path / '.venv'))
    monkeypatch.setattr(module, 'STAMP', str(tmp_path / '.venv/stamp'))
    monkeypatch.setattr(module, 'CONSTRAINTS', str(tmp_path / 'constraints.txt'))
    monkeypatch.setattr(module, 'SOURCES', ('constraints.txt',))
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda path: Usage(100 * GIB, 0, 100 * GIB))
    monkeypatch.setattr(module.subprocess, 'run', lambda *args, **kwargs: pytest.fail(f'ran {args}'))
    (tmp_path / 'constraints.txt').write_text('torch==2.13.0\ntorchmetrics==1\ntorchvision==0.28.0\n')
    return module


def said(capfd):
    out, err = capfd.readouterr()
    assert err.count('\n') == 1 and 'Traceback' not in err
    return err.strip()


def test_a_python_that_is_too_old_or_too_new(bootstrap, monkeypatch, capfd):
    for minor in (9, 14):
        monkeypatch.setattr(sys, 'version_info', (3, minor, 0))
        assert bootstrap.main() == 2
        assert said(capfd) == (
            f'cannot make the environment: Python 3.{minor} found, but florence_mm needs 3.10 to 3.13; run make with '
            'PYTHON=python3.11, say.'
        )


def test_no_venv_module(bootstrap, monkeypatch, capfd):
    # None makes its import fail
    monkeypatch.setitem(sys.modules, 'ensurepip', None)
    assert bootstrap.main() == 2
    minor = sys.version_info[1]
    assert said(capfd).endswith(f'no venv module; install it (on Debian: apt-get install python3.{minor}-venv).')


def test_little_disk(bootstrap, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(bootstrap.shutil, 'disk_usage', lambda path: Usage(9 * GIB, 0, 3.5 * GIB))
    assert bootstrap.main() == 2
    assert f'3.5 GiB free in {tmp_path}, but the environment needs 4 GiB' in said(capfd)


@pytest.mark.parametrize(
    ('error', 'status', 'words'),
    [
        (OSError(errno.ENOSPC, 'No space left on device', 'x.whl'), 2, "No space left on device: 'x.whl'; fix that"),
        (subprocess.CalledProcessError(7, ['pip', 'install']), 2, 'pip install failed with status 7'),
        (KeyboardInterrupt(), 130, 'stopped before the environment was ready'),
    ],
)
def test_a_step_that_ends_early(bootstrap, monkeypatch, capfd, error, status, words):
    def step(*args, **kwargs):
        raise error

    monkeypatch.setattr(bootstrap.subprocess, 'run', step)
    assert bootstrap.main() == status
    assert words in said(capfd)
    assert not bootstrap.is_ready()


def test_a_second_run_does_nothing(bootstrap, tmp_path, monkeypatch, capfd):
    commands = []

    def step(command, **kwargs):
        commands.append(command)
        (tmp_path / '.venv/bin').mkdir(parents=True, exist_ok=True)
        (tmp_path / '.venv/bin/python').touch()

    monkeypatch.setattr(bootstrap, 'venv_python', lambda: str(tmp_path / '.venv/bin/python'))
    monkeypatch.setattr(bootstrap.subprocess, 'run', step)
    monkeypatch.setattr(sys, 'argv', ['bootstrap.py', '--torch-args', '--index-url somewhere'])
    assert bootstrap.main() == 0
    # torch comes before all that would bring another one along; torchvision, which loads beside the same build alone,
    # comes from the same index, and all else from the usual one
    assert commands[2][-5:] == ['--no-deps', 'torch==2.13.0', 'torchvision==0.28.0', '--index-url', 'somewhere']
    assert ['--index-url' in command for command in commands] == [False, False, True, False]
    assert bootstrap.main() == 0 and len(commands) == 4
    assert capfd.readouterr().out.endswith('environment is up to date\n')
    # other requirements, another environment
    (tmp_path / 'constraints.txt').write_text('torch==2.13.1\ntorchvision==0.28.1\n')
    assert bootstrap.main() == 0 and len(commands) == 8


def test_long_steps_say_what_pip_is_at(bootstrap, monkeypatch, capfd):
    def step(command, cwd, check, stdout):
        stdout.write(b'Collecting torch\nDownloading torch-2.13.0.whl (180 MB)\n' + b'x' * 200 + b'\n\n')
        stdout.flush()
        time.sleep(0.2)

    monkeypatch.setattr(bootstrap.subprocess, 'run', step)
    monkeypatch.setattr(bootstrap, 'EVERY', 0.05)
    bootstrap.pip('torch')
    lines = capfd.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 4 and set(lines) == {'        0 s: ' + 'x' * 90}


def test_constraints_without_torchvision(bootstrap, tmp_path):
    (tmp_path / 'constraints.txt').write_text('torch==2.13.0\n')
    with pytest.raises(SystemExit, match='must pin torch and torchvision'):
        bootstrap.torch_pins()
