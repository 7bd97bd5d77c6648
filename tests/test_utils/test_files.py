import errno
import os
import stat
from pathlib import Path

import pytest

from florence_mm.errors import UsageError
from florence_mm.utils.files import refuse_overwriting, replacing, write_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic(tmp_path):
    path = tmp_path / 'new/deep/file.txt'
    write_atomic(path, 'é')
    assert path.read_bytes() == 'é'.encode()
    write_atomic(path, b'\x00\x01')
    assert path.read_bytes() == b'\x00\x01'
    assert names(path.parent) == ['file.txt']


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file.txt'
    write_atomic(path, 'old')

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    monkeypatch.setattr(type(path), 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomic(path, 'new')
    assert path.read_text() == 'old' and names(tmp_path) == ['file.txt']


def test_replacing(tmp_path):
    path = tmp_path / 'file'
    write_atomic(path, 'old')
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text('half')
        raise RuntimeError('stopped')
    assert path.read_text() == 'old' and names(tmp_path) == ['file']
    with replacing(path) as temporary:
        temporary.write_text('new')
        assert path.read_text() == 'old' and temporary.parent == tmp_path
    assert path.read_text() == 'new' and names(tmp_path) == ['file']


def test_two_writers_of_one_path_in_one_process(tmp_path):
    with replacing(tmp_path / 'file') as first:
        first.write_text('first')
        with replacing(tmp_path / 'file') as second:
            second.write_text('second')
        assert (tmp_path / 'file').read_text() == 'second' and first.read_text() == 'first'
    assert (tmp_path / 'file').read_text() == 'first' and names(tmp_path) == ['file']


@pytest.fixture
def steps(monkeypatch):
    """What is flushed and renamed, in order: ``('flush', content of a file or names in a folder)`` and ``'rename'``."""
    done = []
    fsync, rename = os.fsync, Path.replace

    def flush(descriptor):
        at = Path(f'/proc/self/fd/{descriptor}').readlink()
        done.append(('flush', names(at) if at.is_dir() else at.read_text()))
        fsync(descriptor)

    def replace(self, target):
        done.append('rename')
        return rename(self, target)

    monkeypatch.setattr(os, 'fsync', flush)
    monkeypatch.setattr(Path, 'replace', replace)
    return done


@pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='open files are looked up in /proc')
def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, steps):
    write_atomic(tmp_path / 'file', 'old')
    assert steps == [('flush', 'old'), 'rename', ('flush', ['file'])]
    steps.clear()
    write_atomic(tmp_path / 'file', 'new', durable=False)
    assert steps == ['rename']
    steps.clear()
    with pytest.raises(RuntimeError), replacing(tmp_path / 'file') as temporary:
        temporary.write_text('half')
        raise RuntimeError('stopped')
    assert steps == []


@pytest.mark.parametrize(('code', 'passes'), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_flushed(tmp_path, monkeypatch, code, passes):
    fsync = os.fsync

    def flush(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', flush)
    if passes:  # a network drive
        write_atomic(tmp_path / 'file', 'new')
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomic(tmp_path / 'file', 'new')
    assert (tmp_path / 'file').read_text() == 'new'


@pytest.mark.skipif(os.name == 'nt', reason='rights of POSIX')
@pytest.mark.parametrize(('mask', 'mode'), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_rights_of_new_files(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / 'file', 'text')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == mode


def test_an_output_is_none_of_the_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'in.json'
    source.write_text('{}')
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'link.json').symlink_to(source)
    (tmp_path / 'folder').symlink_to('deep')
    (tmp_path / 'hard.json').hardlink_to(source)
    for target in (source, 'in.json', './deep/../in.json', 'link.json', 'hard.json'):
        with pytest.raises(UsageError, match=r'^--out .* is the input .*in\.json, which it would replace'):
            refuse_overwriting(target, [None, 'https://host/in.json', 'missing.json', source], '--out')
    with pytest.raises(UsageError, match='^the output folder is the input deep,'):
        refuse_overwriting('folder', ['deep'])
    # another file, a missing one, and a copy of the same content may be written
    (tmp_path / 'copy.json').write_text('{}')
    for target in ('copy.json', 'new.json', 'deep/in.json'):
        refuse_overwriting(target, [source])


def test_devices_and_pipes_are_not_replaced_by_files(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    (tmp_path / 'link').symlink_to(pipe)
    for path in (pipe, tmp_path / 'link', Path(os.devnull)):
        before = path.stat()
        for write in (lambda p=path: write_atomic(p, 'new'), lambda p=path: refuse_overwriting(p, [])):
            with pytest.raises(UsageError, match=f'{path} is a device or a pipe, .*; name a file'):
                write()
        assert path.stat() == before
    assert names(tmp_path) == ['link', 'pipe']
