"""Download of checkpoints: from a path or URL to a local file."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.fileio import get_local_path
from mmengine.fileio.backends.registry_utils import prefix_to_backends
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from florence_mm.errors import UsageError
from florence_mm.utils.download import download, is_whole
from florence_mm.utils.home import home
from florence_mm.utils.nearest import did_you_mean

from .hub import SCHEME as HUB
from .hub import hub_file

#: Scheme -> mmengine's table of model names and URLs.
_TABLES = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}

#: Schemes of URLs that are downloaded here.
_DOWNLOADED = ('http', 'https', 'file', HUB)


#: Letters of a URL's file name that are kept.
_LONGEST_NAME = 150


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """Context manager that yields the local file of a path or URL.

    Args:
        path: a local path, which need not exist; a URL with ``http://``, ``https://`` or ``file://``, or a model name
            of mmengine's (``torchvision://resnet50``, ``open-mmlab://...``), both downloaded once, see
            :func:`fetch`; a file of the Hugging Face hub, ``hf://OWNER/REPO[/FILE][@REVISION]``; or a path of one of
            mmengine's file backends (``s3://...``).

    Raises:
        ValueError: the name is unknown, or the download fails.
    """
    if '://' not in str(path):
        yield Path(path).expanduser()
        return
    with ExitStack() as stack:
        try:
            url = _resolve(str(path))
            _require_backend(url)
            of_web = urlparse(url).scheme in _DOWNLOADED
            file = fetch(url) if of_web else Path(stack.enter_context(get_local_path(url)))
        except UsageError as error:  # a whole sentence
            raise ValueError(str(error)) from error
        except Exception as error:  # backends raise whatever their client does
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f'{path} cannot be fetched ({reason[0]}); correct the address, or give a file') from error
        yield file


def _require_backend(url: str) -> None:
    """Raise ValueError for a scheme that neither torch nor a file backend of mmengine reads."""
    scheme = urlparse(url).scheme
    if scheme not in (*_DOWNLOADED, *prefix_to_backends):
        known = ', '.join(f'{name}://' for name in (*_DOWNLOADED, 's3'))
        raise ValueError(f'{scheme}:// is none of the schemes for checkpoints, such as {known}')


def fetch(url: str, sha256: str | None = None) -> Path:
    """Download a URL unless it is there; returns the file.

    Files are kept in ``checkpoints`` of :func:`~florence_mm.utils.home.home`, those of the hub in ``hub``, copies of
    ``file://`` in torch's hub folder, where files of earlier versions are found too.

    Args:
        url: ``http://``, ``https://``, ``file://`` or ``hf://``.
        sha256: the published hash.

    Raises:
        UsageError: it cannot be downloaded, or has another hash.
    """
    scheme = urlparse(url).scheme
    if scheme == HUB:
        file = hub_file(url)
        if not is_whole(file, sha256):
            raise UsageError(f'{url} ({file}) has not the published SHA-256 {sha256}; delete it and download it again')
        return file
    # different URLs may end with the same file name
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    name = f'{digest}-{Path(urlparse(url).path).name[-_LONGEST_NAME:]}'
    old = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if scheme == 'file' and not old.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(old))
    if old.exists() and is_whole(old, sha256):
        return old
    return download(url, home() / 'checkpoints' / name, sha256)


def _resolve(path: str) -> str:
    """Replace a model name of mmengine's by its URL; other paths are returned unchanged."""
    scheme, _, name = path.partition('://')
    if scheme not in _TABLES:
        return path
    known = _TABLES[scheme]()
    name = get_deprecated_model_names().get(name, name)
    if name not in known:
        raise ValueError(f'no model has the name {name!r}{did_you_mean(name, known)}')
    return known[name]
