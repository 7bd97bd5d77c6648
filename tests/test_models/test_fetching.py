"""Checkpoints from the web and from the hub: in each public layout, kept where they belong, and every refusal."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from public_models import STATES, VARIANTS
from web_server import web_server

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints import read_checkpoint
from florence_mm.models.checkpoints.fetching import fetch
from florence_mm.models.checkpoints.formats import find_format
from florence_mm.models.checkpoints.hub import hub_file, split_address

RUN = {'mmengine_version': '0.10.7'}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('FLORENCE_MM_HOME', str(tmp_path / 'home'))
    for name in ('FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE', 'http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return tmp_path / 'home'


@pytest.mark.parametrize('name', sorted({**STATES, **VARIANTS}))
def test_public_layouts_from_a_server(name, home, tmp_path):
    """Random weights in the layout, over a connection that is cut, are those that were saved, and known as theirs."""
    found_as, make = VARIANTS.get(name, (name, lambda: STATES[name](tmp_path)))
    state = make()
    torch.save({'state_dict': state, 'meta': RUN if name == 'mmengine run' else {}}, tmp_path / 'w.pth')
    with web_server() as server:
        server.files['/w.pth'] = (tmp_path / 'w.pth').read_bytes()
        server.ways['/w.pth'] = [('cut', 1000)]
        found, meta = read_checkpoint(server.url('/w.pth'))
        assert [asked for _, asked in server.requests] == [None, 'bytes=1000-']
        assert read_checkpoint(server.url('/w.pth'))[0].keys() == found.keys() and len(server.requests) == 2
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    assert find_format(set(found), meta).name == found_as


def test_where_files_are_kept(home, tmp_path):
    with web_server() as server:
        server.files |= {'/a/w.pth': b'1' * 100, '/b/w.pth': b'2' * 100, f'/{"n" * 900}.pth': b'3'}
        files = [fetch(server.url(path)) for path in server.files]
        assert len(set(files)) == 3 and {file.parent for file in files} == {home / 'checkpoints'}
        assert files[0].read_bytes() == b'1' * 100
        # one that torch has from an earlier version is used
        url = server.url('/torch.pth')
        old = tmp_path / 'hub/checkpoints' / f'{hashlib.sha256(url.encode()).hexdigest()[:8]}-torch.pth'
        old.parent.mkdir(parents=True)
        old.write_bytes(b'old')
        assert fetch(url) == old == fetch(url, hashlib.sha256(b'old').hexdigest())
        # unless it is not the one that is published
        server.files['/torch.pth'] = b'new'
        assert fetch(url, hashlib.sha256(b'new').hexdigest()).read_bytes() == b'new'


def test_what_readers_say(home):
    with web_server() as server:
        url = server.url('/w.pth')
        with pytest.raises(ValueError, match=f'^{url} is answered with 404 Not Found; correct the address'):
            read_checkpoint(url)
        server.files['/w.pth'] = b'no checkpoint'
        with pytest.raises(ValueError, match=f'^{url} .kept as {home}/checkpoints/.*w.pth. cannot be read as'):
            read_checkpoint(url)


@pytest.mark.parametrize(
    ('address', 'parts'),
    [
        ('hf://a/b', ('a/b', 'model.safetensors', None)),
        ('hf://a-1/b.c/x/y.bin@v1', ('a-1/b.c', 'x/y.bin', 'v1')),
        ('hf://a/b@refs/pr/1', ('a/b', 'model.safetensors', 'refs/pr/1')),
    ],
)
def test_addresses_on_the_hub(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize('address', ['hf://a', 'hf://', 'hf://a/b/', 'hf://a/b/../c', 'hf://a b/c', 'hf://a/b@'])
def test_no_addresses_on_the_hub(address):
    with pytest.raises(UsageError, match='is no address on the hub; write hf://OWNER/REPO'):
        hub_file(address)


def test_what_the_hub_is_asked(home, monkeypatch, tmp_path):
    asked = []

    def download(repository, file, **settings):
        asked.append((repository, file, settings))
        (tmp_path / 'w.safetensors').write_bytes(b'weights')
        return str(tmp_path / 'w.safetensors')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    assert fetch('hf://a/b/w.safetensors@v1', hashlib.sha256(b'weights').hexdigest()).read_bytes() == b'weights'
    assert asked == [('a/b', 'w.safetensors', {'revision': 'v1', 'cache_dir': home / 'hub', 'local_files_only': False})]
    with pytest.raises(UsageError, match='has not the published SHA-256 abab'):
        fetch('hf://a/b/w.safetensors', 'ab' * 32)
    monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
    fetch('hf://a/b')
    assert asked[-1][2]['local_files_only'] is True


def of_the_hub(kind):
    """An error as the hub's package raises it, which needs the answer of a server."""
    answer = SimpleNamespace(headers={}, request=SimpleNamespace(url='', method='GET'), status_code=404)
    return kind('what it says\nin lines', response=answer)


@pytest.mark.parametrize(
    ('error', 'says'),
    [
        (lambda: of_the_hub(errors.RepositoryNotFoundError), 'the hub has no repository a/b, or it is private'),
        (lambda: of_the_hub(errors.GatedRepoError), 'needs permission; ask for it on its page'),
        (lambda: of_the_hub(errors.RevisionNotFoundError), 'a/b has no revision v1'),
        (lambda: of_the_hub(errors.RemoteEntryNotFoundError), 'a/b has no file f.bin'),
        (lambda: errors.LocalEntryNotFoundError('x'), 'the hub is not reached; check the connection'),
        (lambda: of_the_hub(errors.HfHubHTTPError), r'cannot be downloaded \(what it says\); try again later'),
        (lambda: OSError('disk\nfull'), r'cannot be downloaded \(disk\); try again later'),
    ],
)
def test_refusals_of_the_hub(home, monkeypatch, error, says):
    def refuse(*args, **kwargs):
        raise error()

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    with pytest.raises(UsageError, match=says) as caught:
        hub_file('hf://a/b/f.bin@v1')
    assert '\n' not in str(caught.value) and str(caught.value).startswith('hf://a/b/f.bin@v1')


def test_the_hub_offline(home, monkeypatch):
    """The hub's own package, without a network: a file in its cache is found, another is named."""
    monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
    commit = '0' * 40
    snapshot = home / 'hub/models--a--b/snapshots' / commit
    snapshot.mkdir(parents=True)
    (snapshot / 'model.safetensors').write_bytes(b'weights')
    (home / 'hub/models--a--b/refs').mkdir()
    (home / 'hub/models--a--b/refs/main').write_text(commit)
    assert Path(hub_file('hf://a/b')).read_bytes() == b'weights'
    with pytest.raises(UsageError, match=r'hf://a/b/other.bin is not in the cache, and downloads are switched off'):
        hub_file('hf://a/b/other.bin')
