"""Checkpoint files: read whole or refused with one sentence, and no code in them is run; written whole or not."""

import errno
import os
import pickle
import signal
import stat
import zipfile
from pathlib import Path

import mmengine.fileio
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from florence_mm.errors import user_sentence
from florence_mm.models.checkpoints import load_checkpoint, read_checkpoint, write_safetensors
from florence_mm.models.checkpoints.reading import read_file


def layer(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(6, 5)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch's hub folder."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return tmp_path / 'hub'


def test_url_is_fetched_once(tmp_path, hub):
    source, target = layer(), layer(1)
    torch.save(source.state_dict(), tmp_path / 'b.pth')
    url = (tmp_path / 'b.pth').as_uri()
    load_checkpoint(target, url, strict=True)
    (tmp_path / 'b.pth').unlink()
    target = layer(1)
    load_checkpoint(target, url, strict=True)
    assert same(source.state_dict(), target.state_dict())


def test_a_damaged_download_is_named(tmp_path, hub):
    (tmp_path / 'b.pth').write_bytes(b'a page that says 404')
    url = (tmp_path / 'b.pth').as_uri()
    with pytest.raises(ValueError, match=rf'{url} \(kept as {hub}.*-b.pth\) cannot be read as a checkpoint'):
        read_file(url)


def test_addresses_that_do_not_answer(tmp_path, hub):
    for address, reason in (
        ((tmp_path / 'missing.pth').as_uri(), 'No such file'),
        ('torchvision://resnet5', "no model has the name 'resnet5'; did you mean 'resnet50'?"),
        ('nowhere://x.pth', 'nowhere'),
    ):
        with pytest.raises(ValueError, match=r'cannot be fetched \(.*\); correct the address, or give a file') as error:
            read_file(address)
        assert str(error.value).startswith(f'{address} ') and reason in str(error.value)
        assert '\n' not in str(error.value)


def test_names_of_mmengine_lead_to_their_url(tmp_path, hub, monkeypatch):
    torch.save(layer().state_dict(), tmp_path / 'r.pth')
    table = {'resnet50': (tmp_path / 'r.pth').as_uri()}
    monkeypatch.setattr('florence_mm.models.checkpoints.fetching._TABLES', {'torchvision': lambda: table})
    monkeypatch.setattr(
        'florence_mm.models.checkpoints.fetching.get_deprecated_model_names', lambda: {'old': 'resnet50'}
    )
    for name in ('resnet50', 'old'):
        assert same(read_checkpoint(f'torchvision://{name}')[0], layer().state_dict())


def test_file_backends_of_mmengine(tmp_path, monkeypatch):
    class Storage(mmengine.fileio.LocalBackend):
        def get_local_path(self, filepath):
            return super().get_local_path(tmp_path / filepath.removeprefix('storage://'))

    monkeypatch.setitem(mmengine.fileio.backends.registry_utils.prefix_to_backends, 'storage', Storage)
    torch.save(layer().state_dict(), tmp_path / 'r.pth')
    assert same(read_checkpoint('storage://r.pth')[0], layer().state_dict())


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(layer().state_dict(), tmp_path / 'r.pth')
    assert same(read_checkpoint('~/r.pth')[0], layer().state_dict())


# --- damage ---------------------------------------------------------------------------------------------------------


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_bad_files_are_one_sentence_and_code_does_not_run(tmp_path):
    mark = tmp_path / 'ran'
    torch.save({'model': {'a': torch.zeros(1)}, 'config': Evil(mark)}, tmp_path / 'evil.pth')
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(Evil(mark)))
    (tmp_path / 'text.pth').write_text('hello')
    (tmp_path / 'empty.pth').touch()
    torch.save({'epoch': 3}, tmp_path / 'none.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    good = write_safetensors(tmp_path / 'good.safetensors', {'a': torch.zeros(100)})
    (tmp_path / 'cut.safetensors').write_bytes(good.read_bytes()[:-40])
    whole = tmp_path / 'whole.pth'
    torch.save({'a': torch.zeros(100)}, whole)
    (tmp_path / 'cut.pth').write_bytes(whole.read_bytes()[:-300])
    for name, message in {
        'evil.pth': r'evil.pth holds more than tensors \(pathlib.*\), and loading it could run code',
        'evil.pkl': 'evil.pkl (holds more than tensors|cannot be read as a checkpoint)',
        'text.pth': 'text.pth cannot be read as a checkpoint .*; download or write it again',
        'empty.pth': 'empty.pth cannot be read as a checkpoint',
        'none.pth': 'none.pth holds no tensors by name',
        'list.pth': 'list.pth holds a list, not a checkpoint; save a state dict',
        'cut.safetensors': 'cut.safetensors is not a complete safetensors file',
        'cut.pth': 'cut.pth cannot be read as a checkpoint',
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            read_checkpoint(tmp_path / name)
        assert '\n' not in str(error.value)
    assert not mark.exists()
    with pytest.raises(FileNotFoundError, match='missing.pth does not exist; give a file or a URL'):
        read_checkpoint(tmp_path / 'missing.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_any_wrong_byte_is_seen_or_changes_nothing(tmp_path, suffix):
    """A byte of a file turned round, one after the other: the file is refused, or gives the same tensors."""
    state = {'weight': torch.arange(1.0, 9.0)}
    path = tmp_path / f'model{suffix}'
    if suffix == '.pth':
        torch.save(state, path)
        with zipfile.ZipFile(path) as archive:
            table = archive.start_dir
    else:
        table = len(write_safetensors(path, state).read_bytes()) // 4
    content, refused, unseen = bytearray(path.read_bytes()), 0, []
    # every byte of the archive's table, where a wrong one may only show in what torch makes of it
    for at in (*range(0, table, 4), *range(table, len(content))):
        content[at] ^= 0xFF
        path.write_bytes(content)
        try:
            found, _ = read_checkpoint(path)
        except ValueError:
            refused += 1
        else:
            if not same(found, state):
                unseen.append(at)
        content[at] ^= 0xFF
    assert unseen == [] and refused > 100


def test_safetensors_of_others_have_no_checksum(tmp_path):
    """What the format itself tells is seen: its size and its header; a wrong byte in a tensor is not."""
    state = {'a': torch.arange(100.0)}
    save_file(state, tmp_path / 'public.safetensors', {'format': 'pt'})
    content = (tmp_path / 'public.safetensors').read_bytes()
    assert same(read_checkpoint(tmp_path / 'public.safetensors')[0], state)
    for damaged in (content[:-1], content + b'\x00', b'\xff' * 8 + content[8:], content.replace(b'"F32"', b'"F64"')):
        (tmp_path / 'public.safetensors').write_bytes(damaged)
        with pytest.raises(ValueError, match='is not a complete safetensors file'):
            read_checkpoint(tmp_path / 'public.safetensors')
    (tmp_path / 'public.safetensors').write_bytes(content[:-4] + b'\x00\x00\x00\x00')
    assert read_checkpoint(tmp_path / 'public.safetensors')[0]['a'][-1] == 0


def test_our_safetensors_tell_of_other_tensors(tmp_path):
    path = write_safetensors(tmp_path / 'a.safetensors', {'a': torch.arange(100.0), 'b': torch.ones(2, 3)}, {'x': 'y'})
    with safe_open(path, 'pt') as opened:
        header = opened.metadata()
    assert len(header['tensors_crc32']) == 8
    # the reader takes the checksum for itself: written on, it would be that of other tensors
    assert read_checkpoint(path)[1] == {'format': 'pt', 'x': 'y'}
    for changed in ({'a': torch.arange(100.0)}, {'a': torch.arange(100.0), 'b': torch.ones(3, 2)}):
        save_file(changed, tmp_path / 'changed.safetensors', header)
        with pytest.raises(ValueError, match='changed.safetensors is damaged: its tensors do not have the checksum'):
            read_checkpoint(tmp_path / 'changed.safetensors')


def test_files_without_checksums_are_read(tmp_path):
    state = {'a': torch.arange(100.0)}
    torch.save(state, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / 'fast.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    for name in ('old.pth', 'fast.pth'):
        path = tmp_path / name
        assert same(read_checkpoint(path)[0], state)
        content = path.read_bytes()
        start = content.index(state['a'].numpy().tobytes())
        path.write_bytes(content[: start + 200])
        with pytest.raises(ValueError, match=f'{name} cannot be read as a checkpoint'):
            read_checkpoint(path)
        # as the page on checkpoints says, a wrong byte is not seen
        path.write_bytes(content[: start + 4] + bytes(4) + content[start + 8 :])
        assert read_checkpoint(path)[0]['a'][:3].tolist() == [0, 0, 2]


def test_the_rights_of_a_file_are_the_systems_sentence(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    torch.save({}, path)

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(torch, 'load', refuse)
    with pytest.raises(PermissionError):
        read_file(path)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_the_whole_content(tmp_path):
    content = {'state_dict': {'a': torch.zeros(2)}, 'optimizer': {'state': {0: torch.ones(1)}}, 'meta': {'iter': 3}}
    torch.save(content, tmp_path / 'a.pth')
    read = read_file(tmp_path / 'a.pth')
    assert same(read['state_dict'], content['state_dict']) and read['meta'] == {'iter': 3}
    assert read['optimizer']['state'][0].item() == 1
    write_safetensors(tmp_path / 'a.safetensors', content['state_dict'], {'iter': 3})
    read = read_file(tmp_path / 'a.safetensors')
    assert same(read['state_dict'], content['state_dict']) and read['meta'] == {'format': 'pt', 'iter': '3'}


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_map_location(tmp_path, name):
    state = {'a': torch.zeros(2)}
    torch.save(state, tmp_path / 'a.pth')
    write_safetensors(tmp_path / 'a.safetensors', state)
    for device in ('meta', torch.device('meta')):
        read = read_file(tmp_path / name, device)
        assert read.get('state_dict', read)['a'].device.type == 'meta'
    read = read_file(tmp_path / name, lambda storage, place: storage)
    assert read.get('state_dict', read)['a'].device.type == 'cpu'


# --- writing --------------------------------------------------------------------------------------------------------


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / 'a.safetensors', {'a': torch.zeros(2)})
    old = path.read_bytes()
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'disk full')))
    with pytest.raises(OSError, match='disk full'):
        write_safetensors(path, {'a': torch.ones(2)})
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ['a.safetensors']


def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    resource = pytest.importorskip('resource', reason='limits of POSIX')
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match='a.safetensors cannot be written .*; check its rights and the disk') as error:
            write_safetensors(tmp_path / 'a.safetensors', {'a': torch.zeros(10000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert user_sentence(error.value) == str(error.value) and not list(tmp_path.iterdir())


def test_dicts_and_lists_of_the_header_come_back(tmp_path):
    meta = {'dataset_meta': {'answers': ['yes', 'no']}, 'shape': [1, 2], 'note': '{not json', 'epoch': 3}
    path = write_safetensors(tmp_path / 'a.safetensors', {'a': torch.zeros(2)}, meta)
    assert read_checkpoint(path)[1] == {**meta, 'format': 'pt', 'epoch': '3'}


def test_tensors_without_names_are_no_state_dict(tmp_path):
    torch.save({'state_dict': {0: torch.ones(1)}}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds no tensors by name'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.skipif(os.name == 'nt', reason='rights of POSIX')
def test_others_may_read_what_is_written(tmp_path):
    before = os.umask(0o022)
    try:
        path = write_safetensors(tmp_path / 'new/a.safetensors', {'a': torch.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_views_and_all_types(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    state = {'base': base, 'view': base.t(), 'scalar': torch.tensor(2), 'none': torch.zeros(0, 3), 'half': base.half()}
    state |= {'flag': torch.tensor([True, False]), 'bf16': base.bfloat16(), 'bytes': base.byte()}
    path = write_safetensors(tmp_path / 'a.safetensors', state)
    assert same(read_checkpoint(path)[0], state) and same(load_file(path), state)
