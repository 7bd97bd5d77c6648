"""Bad inputs are refused with one sentence, or give the right value; none hangs, is lost or ends in a stack trace."""

import os
import time
from pathlib import Path

import pytest
from bad_inputs import all_cases
from bad_inputs.case import BadInput, outcome

from florence_mm.errors import UsageError

CASES = all_cases()


@pytest.mark.parametrize(('area', 'case'), CASES, ids=[f'{area}: {case.words}' for area, case in CASES])
def test_input(area: str, case: BadInput, tmp_path: Path):
    folder = tmp_path / 'input'
    folder.mkdir()
    found = outcome(case, folder)
    assert not found.fault, f'{area}, {case.words}: {found.kind}: {found.text}'


def test_each_input_is_listed_once():
    names = [(area, case.words) for area, case in CASES]
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
    folder = tmp_path / 'input'
    folder.mkdir()
    assert {kind: outcome(case, folder).kind for kind, case in runs.items()} == {kind: kind for kind in runs}
    assert outcome(runs['refused'], folder).text == './a.json holds 7; give a list'
