"""The doctor's findings on version tables made up here, and its exit status on this environment."""

import runpy
import sys

import pytest

from florence_mm import doctor
from florence_mm.compat.gaps import GAPS

GOOD = {'mmcv-lite': '2.1.0', 'opencv-python': '5.0.0.93', 'opencv-contrib-python': '5.0.0.93'}


@pytest.fixture(autouse=True)
def no_installed_metadata(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, 'requires', lambda name: [])


def commands(versions, **kwargs):
    return [conflict.command.split(' -m ')[-1] for conflict in doctor.find_conflicts(versions, **kwargs)]


def test_a_good_table_has_no_conflict():
    assert commands(GOOD) == []


@pytest.mark.parametrize(
    ('changed', 'command'),
    [
        ({'mmcv-lite': '2.2.0'}, "pip install 'mmcv-lite==2.1.0'"),
        (
            {'opencv-contrib-python': '4.8.1.78'},
            "pip install 'opencv-python==5.0.0.93' 'opencv-contrib-python==5.0.0.93'",
        ),
        ({'mmcv': '2.1.0'}, "pip install --force-reinstall --no-deps 'mmcv==2.1.0'"),
    ],
)
def test_conflict_and_its_command(changed, command):
    assert commands({**GOOD, **changed}) == [command]


def test_missing_mmcv():
    assert commands({'opencv-python': '5.0.0.93'}) == ["pip install 'mmcv-lite==2.1.0'"]


def test_old_python():
    (conflict,) = doctor.find_conflicts(GOOD, python=(3, 9))
    assert 'Python 3.9 is not supported' in conflict.problem


def test_unmet_requirement_of_another_package(monkeypatch):
    requires = {'torchvision': ['torch==2.13.0', 'numpy', 'gdown; extra == "gdown"']}
    monkeypatch.setattr(doctor.importlib.metadata, 'requires', lambda name: requires.get(name, []))
    versions = {**GOOD, 'torch': '2.12.0', 'torchvision': '0.28.0'}
    problems = {conflict.problem for conflict in doctor.find_conflicts(versions)}
    assert problems == {
        'torchvision requires torch==2.13.0, but 2.12.0 is installed',
        'torchvision requires numpy, which is not installed',
    }


def test_local_version_satisfies_the_pin(monkeypatch):
    monkeypatch.setattr(
        doctor.importlib.metadata, 'requires', lambda name: ['torch==2.13.0'] if name == 'torchvision' else []
    )
    assert commands({**GOOD, 'torch': '2.13.0+cpu', 'torchvision': '0.28.0'}) == []


def test_command_line_on_this_environment(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['florence_mm', 'doctor'])
    with pytest.raises(SystemExit) as end:
        runpy.run_module('florence_mm', run_name='__main__')
    written = capsys.readouterr().out
    assert end.value.code == 0, written
    assert 'No conflict found.' in written and 'mmcv operators' in written


@pytest.mark.parametrize('state', ['patched', 'not needed'])
def test_torchvision_of_another_build_is_named(monkeypatch, state):
    gap = next(gap for gap in GAPS if gap.name == 'torchvision operators')
    monkeypatch.setattr(gap, 'state', state)
    said = list(doctor.advice({'torch': '2.13.0+cpu', 'torchvision': '0.28.0'}))
    assert len(said) == (state == 'patched')
    assert all('before florence_mm fails' in text and "'torchvision==0.28.0' --index-url" in text for text in said)
