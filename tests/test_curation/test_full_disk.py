"""Disks that are full: one sentence, nothing half-written taken for whole, and the next run goes on."""

import errno
import os

import numpy as np
import pytest
from columns_by_hand import write_sidecar
from raw_pairs import good, write_faulty_set, write_tar

from florence_mm.curation.embeddings import read_features
from florence_mm.curation.options import StageBOptions
from florence_mm.curation.run import curate
from florence_mm.curation.settings import make_settings
from florence_mm.curation.stage_b import select
from florence_mm.errors import UsageError, user_sentence
from florence_mm.utils import files


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.usefixtures('one_process')
def test_a_disk_that_is_full_at_any_file(tmp_path, monkeypatch):
    write_faulty_set(tmp_path / 'raw', good_ones=2)
    flush = files._flush
    left = 0

    def full(path, flags):
        nonlocal left
        left -= flags == os.O_RDWR  # a file, not a folder
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path, flags)

    monkeypatch.setattr(files, '_flush', full)

    def run(name, last):
        nonlocal left
        left = last
        inputs = [{'kind': 'tars', 'path': str(tmp_path / 'raw')}]
        folders = {'work': str(tmp_path / name / 'work'), 'out': str(tmp_path / name / 'out')}
        curate(make_settings({'inputs': inputs, **folders, 'stage_c': {'shards': 2}}))
        return last - left

    total = run('whole', 10**9)
    whole = contents(tmp_path / 'whole/out')
    assert total >= 15
    for point in range(1, total + 1, 3):
        name = f'full_{point}'
        with pytest.raises(OSError, match='No space left') as found:
            run(name, point)
        out = tmp_path / name / 'out'
        assert user_sentence(found.value).startswith(str(tmp_path / name))  # it names the file
        assert not any(files.is_temporary(path.name) for path in (tmp_path / name).rglob('*'))
        if (out / 'index.json').exists():
            assert {key for key in whole if not key.startswith('report')} <= set(contents(out))
        run(name, 10**9)
        assert contents(out) == whole


def test_a_database_without_room_is_one_sentence(tmp_path):
    sidecar = write_sidecar(tmp_path / '0.parquet', [{}] * 5000)
    with pytest.raises(UsageError, match=r'^stage B has too little memory or disk \(Out of Memory.*by stage_b.memory'):
        select([sidecar], tmp_path / 'out', StageBOptions(memory='100KB', threads=1))


def test_embeddings_take_their_place_on_the_disk_at_once(tmp_path, monkeypatch):
    """A map of a file whose disk is full kills the process that writes to it."""
    rows = [{'embedding': np.eye(4, dtype=np.float16)[row]} for row in range(3)]
    sidecar = write_sidecar(tmp_path / '0.parquet', rows, width=4)
    reserve, sizes = os.posix_fallocate, []
    monkeypatch.setattr(os, 'posix_fallocate', lambda *args: sizes.append(args[2]) or reserve(*args))
    with read_features([sidecar], np.arange(3), tmp_path) as features:
        assert (features == 4000 * np.eye(4)[:3]).all() and sizes == [2 * 3 * 4]

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with (
        pytest.raises(OSError, match='No space left on device for 2.4e-08 GB of embeddings') as found,
        read_features([sidecar], np.arange(3), tmp_path),
    ):
        pytest.fail('it was not refused')
    assert found.value.filename == str(tmp_path)


def test_a_read_only_folder_is_named_without_the_temporary_name(tmp_path, monkeypatch):
    def touch(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr('pathlib.Path.touch', touch)
    write_tar(tmp_path / 'raw/0.tar', good(0))
    with pytest.raises(OSError, match='Read-only') as found:
        files.write_atomic(tmp_path / 'out/.curation', 'mark')
    assert found.value.filename == str(tmp_path / 'out/.curation')
