"""``tools/analysis_tools/plan_curation.py``: the arithmetic of its table, by hand."""

import runpy
import sys
from pathlib import Path

import pytest

tool = runpy.run_path(str(Path(__file__).parents[2] / 'tools/analysis_tools/plan_curation.py'))


def steps_of(*options):
    return {step.name: step for step in tool['plan'](tool['make_parser']().parse_args(list(options)))}


def test_a_small_plan_by_hand():
    steps = steps_of(
        *('--pairs', '3600000', '--keep', '0.5', '--cores', '2', '--machines', '5', '--stage-a', '100'),
        *('--pair-bytes', '1000', '--sidecar-bytes', '10', '--network', '8', '--stage-c', '36', '--stage-b', '1000'),
    )
    # 3.6 million pairs by ten cores of 100 a second: one hour; the network has 5 GB a second
    step = steps['A: sidecars']
    assert step.hours == pytest.approx({'decoding': 1, 'network': 3.6e9 / 5e9 / 3600})
    assert step.bound == 'decoding' and step.written == 36e6
    assert steps['B: columns, DuckDB'].hours['processor'] == pytest.approx(0.5)
    assert steps['C: shards'].hours['processor'] == pytest.approx(1.8e6 / 360 / 3600)
    assert steps['C: shards'].written == 1.8e9


def test_a_model_bounds_stage_a():
    step = steps_of('--pairs', '7200000', '--machines', '4', '--score', '500')['A: sidecars']
    assert step.hours['model'] == pytest.approx(1) and step.bound == 'model'
    step = steps_of('--pairs', '7200000', '--machines', '4', '--score', '500', '--devices', '8')['A: sidecars']
    assert step.hours['model'] == pytest.approx(0.5)


def test_near_duplicates_grow_by_their_own_law():
    parse = tool['make_parser']().parse_args
    few = tool['near_seconds'](1.4e6, parse(['--table', '1e7', '--compare', '1e6']))
    # ten tables of 1.4 million at ten million a second, and 0.19 million pairs that agree by chance
    assert few == pytest.approx(1.4 + 1.4e6**2 / 2 * 10 / 2**25.6 / 1e6)
    assert few == pytest.approx(1.4 + 0.193, abs=1e-3)
    many = tool['near_seconds'](9e8, parse(['--table', '1e7', '--compare', '1e6']))
    assert many == pytest.approx(1800 + 9e8**2 / 2 * 20 / 2**32 / 1e6)


@pytest.mark.parametrize(
    ('hours', 'said'),
    [
        *((250, '250 h'), (9.96, '10 h'), (1, '1 h'), (0.75, '45 min'), (0.022, '1.3 min'), (1 / 60, '1 min')),
        *((0.001, '3.6 s'), (0, '0 s')),
    ],
)
def test_times_are_said_in_the_largest_unit(hours, said):
    assert tool['duration'](hours) == said


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--machines', '1', '--cores', '1'], '1 machine with 1 core, 10 Gbit/s'),
        (['--machines', '2', '--cores', '16'], '2 machines with 16 cores, 10 Gbit/s each'),
    ],
)
def test_one_machine_is_one(monkeypatch, capsys, options, said):
    monkeypatch.setattr(sys, 'argv', ['plan_curation.py', *options])
    tool['main']()
    assert capsys.readouterr().out.splitlines()[1] == said


def test_it_prints_a_table_and_refuses_nonsense(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['plan_curation.py'])
    tool['main']()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == '3,000,000,000 raw pairs of 60,000 bytes, 900,000,000 kept;'
    assert out[2].startswith('| stage | time | bound by |') and len(out) == 10
    for options, sentence in (
        (['--keep', '30'], '--keep 30 must be from 0 to 1'),
        (['--stage-a', '0'], '--stage-a 0 must be positive'),
        (['--score', '-1'], '--score -1 must be 0 or more'),
        (['--pairs', 'nan'], '--pairs nan must be positive'),
    ):
        monkeypatch.setattr(sys, 'argv', ['plan_curation.py', *options])
        with pytest.raises(SystemExit):
            tool['main']()
        assert sentence in capsys.readouterr().err
