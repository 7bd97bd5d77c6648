"""Bad inputs are refused with one sentence, or give the right value; none hangs, is lost or ends in a stack trace."""

import os
import time
from pathlib import Path
from types import ModuleType

import pytest
from bad_inputs import all_cases, areas
from bad_inputs.case import BadInput, outcomes

from florence_mm.errors import UsageError


@pytest.mark.parametrize('area', areas(), ids=lambda area: area.AREA)
def test_area(area: ModuleType, tmp_path: Path):
    cases = area.cases()
    faults = [
        f'{case.words}: {found.kind}: {found.text}'
        for case, found in zip(cases, outcomes(cases, tmp_path), strict=True)
        if found.fault
    ]
    assert not faults, '\n'.join(faults)


def test_each_input_is_listed_once():
    names = [(area, case.words) for area, case in all_cases()]
    assert len(set(names)) == len(names)


def test_an_outcome_tells_every_fault(tmp_path: Path):
    def refuse(folder: Path):
        raise UsageError(f'{folder}/a.json holds 7; give a list')

    runs = {
        'refused': BadInput('a', refuse, says=('a.json', '7')),
        'wrong sentence': BadInput('b', refuse, says='b.json'),
        'accepted': BadInput('c', lambda folder: 7, says='7'),
        'right': BadInput('d', lambda folder: 7, gives=7),
        'wrong value': BadInput('e', lambda folder: 8, gives=7),
        'trace': BadInput('f', lambda folder: [][0], gives=7),
        'hang': BadInput('g', lambda folder: time.sleep(60), gives=7, seconds=0.2),
        'died': BadInput('h', lambda folder: os._exit(3), gives=7),
    }
    found = outcomes(list(runs.values()), tmp_path)
    assert [outcome.kind for outcome in found] == list(runs)
    assert found[0].text == './a.json holds 7; give a list'
