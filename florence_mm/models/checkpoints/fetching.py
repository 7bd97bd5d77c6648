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

from florence_mm.utils.nearest import did_you_mean

#: Scheme -> mmengine's table of model names and URLs.
_TABLES = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}

#: Schemes of URLs that torch downloads.
_DOWNLOADED = ('http', 'https', 'file')


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """Context manager that yields the local file of a path or URL.

    Args:
        path: a local path, which need not exist; a URL with ``http://``, ``https://`` or ``file://``, or a model name
            of mmengine's (``torchvision://resnet50``, ``open-mmlab://...``), both downloaded once into torch's hub
            folder with a progress bar; or a path of one of mmengine's file backends (``s3://...``).

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
            if urlparse(url).scheme in _DOWNLOADED:
                file = download(url)
            else:
                file = Path(stack.enter_context(get_local_path(url)))
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


def download(url: str) -> Path:
    """Download a URL into torch's hub folder unless it is there; returns the file."""
    # different URLs may end with the same file name
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    target = Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{Path(urlparse(url).path).name}'
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target))
    return target


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
