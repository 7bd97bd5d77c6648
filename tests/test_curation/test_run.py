import importlib
import multiprocessing
import os
import shutil
import signal
import sys

import pytest
from forks import start, wait
from pyarrow import parquet
from raw_pairs import good, picture, run_here, write_faulty_set, write_tar

import florence_mm.curation.run
import florence_mm.curation.stage_c
from florence_mm.curation.run import curate
from florence_mm.curation.settings import make_settings
from florence_mm.curation.state import one_run
from florence_mm.errors import UsageError
from florence_mm.formats.shards import read_set


def settings_of(folder, **options):
    defaults = {'inputs': [{'kind': 'tars', 'path': str(folder / 'raw')}], 'stage_c': {'shards': 3}}
    return make_settings({'work': str(folder / 'work'), 'out': str(folder / 'out'), **defaults, **options})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.usefixtures('one_process')
def test_every_raw_pair_is_kept_or_dropped_for_one_reason(tmp_path):
    planted = write_faulty_set(tmp_path / 'raw')
    write_tar(tmp_path / 'raw/00003.tar', [*good(0), ('same.jpg', picture(2)), ('same.txt', b'the same again')])
    found = curate(settings_of(tmp_path))
    assert found.by_reason == {**planted, 'near_duplicate': 2}
    assert found.pairs == sum(planted.values()) + 2 and found.shards.total == planted['kept']
    assert read_set(tmp_path / 'out').total == planted['kept']


@pytest.mark.usefixtures('one_process')
def test_pairs_that_only_the_downloader_counted_are_counted_and_no_rows(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [*good(0), *good(1)])
    (tmp_path / 'raw/0_stats.json').write_text('{"successes": 3000000000}')
    write_tar(tmp_path / 'raw/1.tar', [*good(2), *good(3), *good(4)], damage=['0003.jpg', '0003.json'])
    (tmp_path / 'raw/1_stats.json').write_text('{"successes": 2000000}')
    found = curate(settings_of(tmp_path))
    assert found.by_reason == {'kept': 4, 'missing': 2_999_999_998, 'damaged_tar': 1_999_998}
    assert found.pairs == 3_002_000_000 and found.report.content['pairs'] == found.pairs
    assert found.report.content['dropped']['stage A'] == {'damaged_tar': 1_999_998, 'missing': 2_999_999_998}
    assert [parquet.read_table(tmp_path / f'work/stage_a/{n:05}.parquet').num_rows for n in (0, 1)] == [3, 3]


@pytest.mark.usefixtures('one_process')
def test_each_stage_is_logged_when_it_begins(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.curation.run.print_log', lambda message, logger: said.append(message))
    for number in range(2):
        write_tar(tmp_path / f'raw/{number}.tar', good(number))
    curate(settings_of(tmp_path, stage_c={'shards': 2}))
    assert [line.partition(' in ')[0] for line in said] == ['stage A', 'stage B: sidecars: 2', 'stage C', 'report']
    assert said[0].endswith('raw shards: 2, processes: 1')


@pytest.mark.usefixtures('one_process')
def test_a_run_that_keeps_nothing_says_what_dropped_the_pairs(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [('a.jpg', picture(0)), ('b.jpg', picture(1)), ('c.txt', b'no picture')])
    with pytest.raises(UsageError, match=r'no pair of 3 was kept \(no_image: 1, no_text: 2\)'):
        curate(settings_of(tmp_path))


@pytest.mark.usefixtures('one_process')
def test_what_nearly_duplicates_an_evaluation_set_is_dropped(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [member for number in range(6) for member in good(number)])
    write_tar(tmp_path / 'evaluation/0.tar', [('a.jpg', picture(3)), ('a.txt', b'held out'), ('b.jpg', picture(5))])
    found = curate(settings_of(tmp_path, evaluation=[{'kind': 'tars', 'path': str(tmp_path / 'evaluation')}]))
    assert found.by_reason == {'kept': 4, 'evaluation_duplicate': 2}


@pytest.mark.usefixtures('one_process')
def test_other_options_or_inputs_change_the_set_and_the_same_ones_do_not(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [member for number in range(6) for member in good(number)])
    curate(settings_of(tmp_path))
    first = contents(tmp_path / 'out')
    assert curate(settings_of(tmp_path)).shards.total == 6 and contents(tmp_path / 'out') == first
    write_tar(tmp_path / 'raw/1.tar', good(9))
    assert curate(settings_of(tmp_path)).shards.total == 7
    (tmp_path / 'raw/1.tar').unlink()
    assert curate(settings_of(tmp_path)).shards.total == 6 and contents(tmp_path / 'out') == first


def kill_everywhere(folder):
    """Curate in forks of this process, which has used no threads: whole, and killed at several points."""
    for name in ('duckdb', 'pyarrow.parquet', 'pandas'):
        importlib.import_module(name)  # once, not in each fork
    for module in (florence_mm.curation.run, florence_mm.curation.stage_c):
        module.run_tasks = run_here
    whole, broken = folder / 'whole', folder / 'broken'

    def run(folder, last=10**9):
        """Curate in a fork; end it as a power cut does before it opens, renames or removes its ``last``-th file."""
        left = last

        def hook(event, args):
            nonlocal left
            if event in ('os.rename', 'os.remove') or (event == 'open' and args[2] & (os.O_WRONLY | os.O_RDWR)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def work():
            sys.addaudithook(hook)
            curate(settings_of(folder))
            (folder / 'count').write_text(str(last - left))

        return wait([start(work)])

    assert run(whole) == [0]
    total = int((whole / 'count').read_text())
    points = [*range(3, total, total // 8), total - 1]
    over_report = 0
    for point in points:
        shutil.rmtree(broken / 'work', ignore_errors=True)
        shutil.rmtree(broken / 'out', ignore_errors=True)
        assert run(broken, point) == [-signal.SIGKILL]
        # what a killed run leaves is no set, unless it was killed over the report
        if (broken / 'out/index.json').exists():
            assert contents(broken / 'out') == contents(whole / 'out')
            over_report += 1
        assert run(broken) == [0]
        assert contents(broken / 'out') == contents(whole / 'out')
    assert len(points) >= 8 and over_report < len(points) // 2


def test_a_run_killed_at_any_point_and_started_again_gives_the_same_set(tmp_path):
    for name in ('whole', 'broken'):
        write_faulty_set(tmp_path / name / 'raw', good_ones=3)
    process = multiprocessing.get_context('spawn').Process(target=kill_everywhere, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0  # what failed stands in its output


def test_the_set_does_not_depend_on_the_number_of_processes(tmp_path):
    write_faulty_set(tmp_path / 'raw')
    curate(settings_of(tmp_path, workers=2))
    two = contents(tmp_path / 'out')
    curate(settings_of(tmp_path, work=str(tmp_path / 'one'), out=str(tmp_path / 'out1')))
    assert contents(tmp_path / 'out1') == two and len(two) == 8


@pytest.mark.usefixtures('one_process')
def test_two_runs_do_not_share_a_work_folder(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', good(1))
    with one_run(tmp_path / 'work'), pytest.raises(UsageError, match=r'another run works in .*work; let it end'):
        curate(settings_of(tmp_path))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'input': []}, "the config has 'input', which is no setting of curation; did you mean 'inputs'?"),
        ({'inputs': []}, "the config does not set 'inputs'"),
        ({'inputs': 'raw'}, "inputs='raw' must be a list of sources"),
        ({'inputs': [{'kind': 'tar', 'path': 'raw'}]}, "inputs: kind='tar' is none of tars, manifest, parquet, folder"),
        ({'inputs': [{'kind': 'tars'}]}, r"inputs\[0\]: missing 1 required positional argument: 'path'; add it"),
        ({'inputs': [{'kind': 'tars', 'path': 'r', 'names': {'txt': 'a'}}]}, "names has 'txt', which is no field"),
        ({'stage_a': {'minside': 3}}, "stage_a has 'minside', which is no option of it; did you mean 'min_side'?"),
        ({'stage_a': {'max_aspect': 0.5}}, 'stage_a.max_aspect=0.5 must be a number from 1'),
        ({'stage_a': {'min_side': 0}}, 'stage_a.min_side=0 must be a whole number from 1'),
        ({'stage_a': {'embeddings': True}}, 'stage_a.embeddings needs a model'),
        ({'stage_b': {'min_score': 0.2}}, 'stage_b.min_score needs a model'),
        ({'stage_c': {'shards': 0}}, 'stage_c.shards=0 must be a whole number from 1, or None'),
        ({'workers': 0}, 'workers=0 must be a whole number from 1'),
        ({'engine': 'spark'}, "engine='spark' is none of pool, ray"),
        ({'model': {'checkpoint': 'a.pth'}}, "model: missing 1 required positional argument: 'name'; add it"),
        ({'out': 'work'}, 'work and out are both work; name two folders'),
        ({'tokenizer': 'clip'}, "tokenizer='clip' must be such as dict"),
        ({'stage_a': 3}, 'stage_a is 3; expected a dict of options'),
    ],
)
def test_wrong_settings_are_one_sentence(change, sentence):
    config = {'inputs': [{'kind': 'tars', 'path': 'raw'}], 'work': 'work', 'out': 'out'}
    with pytest.raises(UsageError, match=sentence):
        make_settings({**config, **change})


def test_a_source_with_nothing_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r'there is nothing in .*raw; correct the path or its kind'):
        curate(settings_of(tmp_path))
