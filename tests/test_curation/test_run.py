import pytest
from raw_pairs import good, picture, write_faulty_set, write_tar

from florence_mm.curation.run import curate
from florence_mm.curation.settings import make_settings
from florence_mm.formats.shards import read_set


def settings_of(folder, **options):
    defaults = {'inputs': [{'kind': 'tars', 'path': str(folder / 'raw')}], 'stage_c': {'shards': 3}}
    return make_settings({'work': str(folder / 'work'), 'out': str(folder / 'out'), **defaults, **options})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def one_process(monkeypatch):
    """Run both stages in this process, as starting others takes a second."""

    def run(function, tasks, workers, engine='pool', make_context=None):
        context = make_context()
        return (function(task, context) for task in tasks)

    monkeypatch.setattr('florence_mm.curation.run.run_tasks', run)
    monkeypatch.setattr('florence_mm.curation.stage_c.run_tasks', run)


@pytest.mark.usefixtures('one_process')
def test_every_raw_pair_is_kept_or_dropped_for_one_reason(tmp_path):
    planted = write_faulty_set(tmp_path / 'raw')
    write_tar(tmp_path / 'raw/00003.tar', [*good(0), ('same.jpg', picture(2)), ('same.txt', b'the same again')])
    found = curate(settings_of(tmp_path))
    assert found.by_reason == {**planted, 'near_duplicate': 2}
    assert found.pairs == sum(planted.values()) + 2 and found.shards.total == planted['kept']
    assert read_set(tmp_path / 'out').total == planted['kept']


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


_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_run import settings_of
from florence_mm.curation.run import curate
if __name__ == '__main__':
    curate(settings_of(Path(sys.argv[2])), None)
"""
