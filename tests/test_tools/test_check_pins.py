"""``tools/misc/check_pins.py`` names each requirement of an extra that pip could meet with an old release."""

import runpy
from pathlib import Path

import pytest
from packaging.requirements import Requirement

check_pins = runpy.run_path(str(Path(__file__).parents[2] / 'tools/misc/check_pins.py'))
PYTHONS = ('3.10', '3.11', '3.12', '3.13')


def judge(requirement, *pins, python='3.11'):
    known = {pin.partition('==')[0]: Requirement(pin) for pin in pins}
    return check_pins['old_releases']({'cluster': [requirement]}, known, python)


def test_an_extra_without_a_lower_bound():
    # with pyarrow 26 pinned, pip takes daft 0.6.14 for this
    for requirement in ('daft', 'daft<0.8', 'daft!=0.7.1'):
        assert judge(requirement, 'daft==0.7.26') == [f'cluster requires {requirement} without a lower bound']
    for requirement in ('daft>=0.7', 'daft~=0.7', 'daft==0.7.26', 'daft>0.6,<1'):
        assert judge(requirement, 'daft==0.7.26') == []


def test_a_pin_that_is_older_than_the_bound_or_missing():
    assert judge('daft>=0.7', 'daft==0.6.14') == ['cluster requires daft>=0.7, but the pin is daft==0.6.14']
    assert judge('daft>=0.7', 'pyarrow==25.0.1') == ['cluster requires daft>=0.7, which has no pin']


def test_only_what_is_of_the_python():
    requirement = 'mkdocs>=1; python_version >= "3.11"'
    assert judge(requirement, python='3.10') == []
    assert judge(requirement) == [f'cluster requires {requirement}, which has no pin']


def test_mmcv_is_the_users_own_build():
    assert judge('mmcv>=2.1,<2.2') == []
    assert judge('mmcv') == ['cluster requires mmcv without a lower bound']


@pytest.mark.parametrize('python', PYTHONS)
def test_the_extras_of_this_release(python):
    extras = check_pins['extras_of_setup']()
    assert {'curate', 'cluster', 'demo', 'export', 'search', 'docs'} < set(extras)
    assert check_pins['old_releases'](extras, check_pins['pins_for'](python), python) == []
