import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from raw_pairs import good, picture, write_tar

from florence_mm.curation.columns import kept_schema, make_id
from florence_mm.curation.inputs import find_shards
from florence_mm.curation.options import InputOptions, StageAOptions, StageCOptions
from florence_mm.curation.stage_a import process_shard, sidecar_path
from florence_mm.curation.stage_c import Part, Places, claim_folder, divide, read_kept, write_kept, write_part
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.shards import read_set


@pytest.fixture
def places(tmp_path):
    """Two raw tars of four pairs, and what stage A found of them."""
    write_tar(tmp_path / 'raw/0.tar', [member for number in range(4) for member in good(number, query=f'q{number}')])
    write_tar(tmp_path / 'raw/1.tar', [member for number in range(4, 8) for member in good(number)])
    shards = find_shards([InputOptions('tars', str(tmp_path / 'raw'))], tmp_path / 'work')
    counts = [process_shard(shard, StageAOptions(), tmp_path / 'work') for shard in shards]
    sidecars = [(sidecar_path(tmp_path / 'work', one.shard), one.digest) for one in counts]
    return Places(shards, sidecars, tmp_path / 'work', tmp_path / 'out')


@pytest.fixture
def one_process(monkeypatch):
    """Write shards in this process, as starting others takes a second."""

    def run(function, tasks, workers, engine, make_context):
        return (function(task, make_context()) for task in tasks)

    monkeypatch.setattr('florence_mm.curation.stage_c.run_tasks', run)


def write_kept_file(path, ids, position=None, short=()):
    rows = {'id': ids, 'position': range(len(ids)) if position is None else position}
    rows['short'] = [sample_id in short for sample_id in ids]
    parquet.write_table(pa.table({name: list(values) for name, values in rows.items()}, schema=kept_schema()), path)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


KEPT = [make_id(0, 0), make_id(0, 2), make_id(0, 3), make_id(1, 1), make_id(1, 3)]


@pytest.mark.usefixtures('one_process')
def test_kept_pairs_are_written_with_their_bytes_in_shards_of_even_size(places, tmp_path):
    kept = write_kept_file(tmp_path / 'kept.parquet', KEPT, short=KEPT[1:2])
    found = write_kept(kept, places, StageCOptions(shards=2))
    assert found.samples.tolist() == [2, 3] and read_set(places.out).total == 5
    samples = []
    for name in ('00000.tar', '00001.tar'):
        with tarfile.open(places.out / name) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        for key in sorted({name.partition('.')[0] for name in files}):
            samples.append((key, files[f'{key}.jpg'], json.loads(files[f'{key}.json'])))
    assert [key for key, _, _ in samples] == [f'{number:012}' for number in range(5)]
    assert [data for _, data, _ in samples] == [picture(number) for number in (0, 2, 3, 5, 7)]
    text = 'a picture of thing {}'
    assert samples[1][2] == {
        'text': text.format(2), 'augmented': False, 'id': KEPT[1], 'query': 'q2', 'short': True
    }  # fmt: skip
    assert samples[4][2] == {'text': text.format(7), 'augmented': False, 'id': KEPT[4]}


@pytest.mark.usefixtures('one_process')
def test_positions_give_the_order_of_writing(places, tmp_path):
    kept = write_kept_file(tmp_path / 'kept.parquet', KEPT, position=[4, 0, 3, 2, 1])
    assert read_kept(kept)[0].tolist() == [KEPT[1], KEPT[4], KEPT[3], KEPT[2], KEPT[0]]
    write_kept(kept, places, StageCOptions())
    with tarfile.open(places.out / '00000.tar') as tar:
        pictures = [tar.extractfile(member).read() for member in tar if member.name.endswith('jpg')]
    assert pictures == [picture(number) for number in (2, 7, 5, 3, 0)]


def test_shards_and_index_do_not_depend_on_workers(places, tmp_path):
    kept = write_kept_file(tmp_path / 'kept.parquet', KEPT)
    write_kept(kept, places, StageCOptions(shards=3), workers=1)
    first = contents(places.out)
    other = Places(places.shards, places.sidecars, tmp_path / 'other_work', tmp_path / 'other')
    write_kept(kept, other, StageCOptions(shards=3), workers=2)
    assert contents(other.out) == first and len(first) == 8


@pytest.mark.usefixtures('one_process')
def test_only_what_is_missing_or_damaged_is_written_again(places, tmp_path):
    kept = write_kept_file(tmp_path / 'kept.parquet', KEPT)
    write_kept(kept, places, StageCOptions(shards=3))
    first = contents(places.out)
    times = {name: (places.out / name).stat().st_mtime_ns for name in first}

    def rewritten():
        write_kept(kept, places, StageCOptions(shards=3))
        assert contents(places.out) == first
        changed = {name for name in first if (places.out / name).stat().st_mtime_ns != times[name]}
        times.update({name: (places.out / name).stat().st_mtime_ns for name in first})
        return changed - {'index.json'}

    assert rewritten() == set()
    (places.out / '00001.tar').write_bytes(first['00001.tar'][:-1] + b'x')
    assert rewritten() == {'00001.tar', '00001.index.npy'}
    (places.out / '00002.index.npy').unlink()
    assert rewritten() == {'00002.tar', '00002.index.npy'}
    # a tar of a killed run, without its record
    places.record(0).unlink()
    (places.out / '00000.tar').write_bytes(b'half')
    assert rewritten() == {'00000.tar', '00000.index.npy'}


@pytest.mark.usefixtures('one_process')
def test_fewer_shards_than_before_leave_none_behind(places, tmp_path):
    kept = write_kept_file(tmp_path / 'kept.parquet', KEPT)
    write_kept(kept, places, StageCOptions(shards=4))
    write_kept(kept, places, StageCOptions(shards=2))
    assert sorted(path.name for path in places.out.glob('0*')) == [
        '00000.index.npy', '00000.tar', '00001.index.npy', '00001.tar',
    ]  # fmt: skip
    assert read_set(places.out).samples.tolist() == [2, 3]


def test_a_part_that_is_only_looked_for_is_not_written(places):
    part = Part(0, 0, np.array(KEPT), np.zeros(5, bool), write=False)
    assert write_part(part, places) == (0, None) and not places.out.exists()


@pytest.mark.parametrize(
    ('total', 'options', 'bounds'),
    [
        (7, {'shards': 3}, [0, 2, 4, 7]),
        (20, {'samples_per_shard': 7}, [0, 6, 13, 20]),
        (20, {'samples_per_shard': 20}, [0, 20]),
    ],
)
def test_sizes_differ_by_one_at_most(total, options, bounds):
    assert divide(total, StageCOptions(**options)) == bounds


@pytest.mark.usefixtures('one_process')
def test_what_cannot_be_written_is_one_sentence(places, tmp_path):
    with pytest.raises(UsageError, match='no pair was kept'):
        write_kept(write_kept_file(tmp_path / 'none.parquet', []), places, StageCOptions())
    with pytest.raises(UsageError, match=r'stage_c.shards=6 is more than the 5 pairs'):
        write_kept(write_kept_file(tmp_path / 'few.parquet', KEPT), places, StageCOptions(shards=6))
    with pytest.raises(DataError, match=r'twice\.parquet has a position twice'):
        read_kept(write_kept_file(tmp_path / 'twice.parquet', KEPT[:2], position=[0, 0]))
    with pytest.raises(UsageError, match=r'raw holds 0\.tar, which curation did not write; name another folder'):
        raw = Places(places.shards, places.sidecars, places.work, tmp_path / 'raw')
        write_kept(write_kept_file(tmp_path / 'kept.parquet', KEPT), raw, StageCOptions())
    (tmp_path / 'digits').mkdir()
    (tmp_path / 'digits/train.jsonl').touch()
    with pytest.raises(UsageError, match=r'digits holds train\.jsonl, which curation did not write'):
        claim_folder(tmp_path / 'digits')
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new/..curation.1-0123abcd.tmp').touch()
    for _ in range(2):
        claim_folder(tmp_path / 'new')
    (tmp_path / 'raw/1.tar').write_bytes(b'')
    with pytest.raises(DataError, match=r'raw shard 1 \(.*1\.tar\) has changed since stage A looked at it'):
        write_kept(tmp_path / 'kept.parquet', places, StageCOptions())
