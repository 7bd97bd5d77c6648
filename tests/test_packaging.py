"""A wheel and an editable install both carry configs, tools and the model index, found from a user's own folder."""

import ast
import importlib.metadata
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from florence_mm.config.metafiles import list_models

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    '.*cache*', '.venv', '.git', 'work_dirs', 'data', 'build', 'dist', '*.egg-info', '__pycache__'
)
USER_CONFIG = """
_base_ = 'florence_mm::_base_/default_runtime.py'
randomness = dict(seed=7)
"""
USER_SCRIPT = """
import florence_mm
from mmengine.config import Config
cfg = Config.fromfile('mine.py')
assert cfg.randomness.seed == 7 and cfg.default_hooks.checkpoint.type, cfg
print(florence_mm.__file__)
"""


def test_what_the_package_imports_is_required(monkeypatch):
    """Each other package by its own name, not only because a third one happens to need it."""
    arguments = {}
    monkeypatch.setattr(setuptools, 'setup', arguments.update)
    runpy.run_path(str(ROOT / 'setup.py'))
    extras = arguments['extras_require']
    # of the extras of single tasks, the modules are imported on demand
    lines = [*arguments['install_requires'], *(line for name in extras for line in extras[name] if name != 'test')]
    required = {canonicalize_name(Requirement(line).name) for line in lines}
    imported = set()
    for file in (ROOT / 'florence_mm').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition('.')[0])
    owners = importlib.metadata.packages_distributions()
    for module in sorted(imported - sys.stdlib_module_names - {'florence_mm'}):
        distributions = {canonicalize_name(name) for name in owners.get(module, [module])}
        assert distributions & required, f'{module} is imported, but setup.py requires none of {distributions}'


def run_in(folder, **environment):
    (folder / 'mine.py').write_text(USER_CONFIG)
    return subprocess.run(
        [sys.executable, '-c', USER_SCRIPT],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp('source') / 'checkout'
    shutil.copytree(ROOT, source, symlinks=True, ignore=LEFT_OUT)
    out = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', out, source]
    subprocess.run(command, check=True, timeout=300)
    (file,) = out.glob('florence_mm-*.whl')
    return file


def test_wheel_carries_every_config_and_tool(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, suffixes in (('configs', {'.py', '.yml', '.md'}), ('tools', {'.py', '.sh'})):
        for file in (ROOT / folder).rglob('*'):
            if file.suffix in suffixes and '__pycache__' not in file.parts:
                assert f'florence_mm/.mim/{file.relative_to(ROOT).as_posix()}' in names
    assert 'florence_mm/.mim/model-index.yml' in names
    assert not any(name.startswith(('tests/', 'docs/')) for name in names)


def test_installed_wheel_has_the_command(wheel, tmp_path):
    """The script that pip writes, away from the checkout, finds tools, configs and names in the wheel."""
    command = [
        sys.executable,
        '-m',
        'pip',
        'install',
        '-q',
        '--no-deps',
        '--no-index',
        '--target',
        tmp_path / 'site',
        wheel,
    ]
    subprocess.run(command, check=True, timeout=120)
    script, environment = tmp_path / 'site/bin/florence-mm', {**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}

    def run(*arguments):
        line = [script, *arguments]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert run('--version').split() == ['florence-mm', importlib.metadata.version('florence_mm')]
    assert '\n  train ' in run('--help')
    assert run('completion', '--models').splitlines() == list_models()


def test_user_config_inherits_from_the_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    result = run_in(tmp_path, PYTHONPATH=str(tmp_path / 'site'))
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == str(tmp_path / 'site/florence_mm/__init__.py')


def test_user_config_inherits_from_the_editable_install(tmp_path):
    result = run_in(tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert Path(result.stdout.strip()) == ROOT / 'florence_mm/__init__.py'


def test_mim_folder_links_into_the_checkout():
    mim = ROOT / 'florence_mm/.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).resolve() == ROOT / name


def test_pins_cover_the_ranges_of_setup():
    pins = {}
    for line in (ROOT / 'requirements/constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            pin = Requirement(line)
            pins.setdefault(pin.name.lower().replace('_', '-'), []).append(str(pin.specifier).removeprefix('=='))
    for text in importlib.metadata.requires('florence_mm'):
        wanted = Requirement(text)
        if wanted.name != 'mmcv':  # the compiled variant is the user's own build
            for version in pins[wanted.name.lower().replace('_', '-')]:
                assert wanted.specifier.contains(version), f'{wanted} excludes the pin {version}'
