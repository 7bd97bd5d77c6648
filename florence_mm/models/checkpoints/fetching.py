"""From the address of a checkpoint to a file on this machine."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.fileio import get_local_path
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from florence_mm.utils.nearest import did_you_mean

#: Schemes whose rest is a name in a table of mmengine's.
_TABLES = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """Give the file that a path or an address leads to, for as long as the block lasts.

    Args:
        path: a local path, as it is, there or not; an address with ``http://``, ``https://`` or ``file://``, downloaded
            once into torch's hub folder with a progress bar; a name of mmengine's (``torchvision://resnet50``,
            ``open-mmlab://...``), downloaded so too; or an address of one of mmengine's file backends (``s3://...``).

    Raises:
        ValueError: the address is unknown or does not answer.
    """
    if '://' not in str(path):
        yield Path(path).expanduser()
        return
    with ExitStack() as stack:
        try:
            url = _resolve(str(path))
            if urlparse(url).scheme in ('http', 'https', 'file'):
                file = download(url)
            else:
                file = Path(stack.enter_context(get_local_path(url)))
        except Exception as error:  # backends raise whatever their client does
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f'{path} cannot be fetched ({reason[0]}); correct the address, or give a file') from error
        yield file


def download(url: str) -> Path:
    """The copy of a URL's file in torch's hub folder, made if it is not there."""
    # two places may use the same file name
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    target = Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{Path(urlparse(url).path).name}'
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target))
    return target


def _resolve(path: str) -> str:
    """The address behind a name of mmengine's; others as they are."""
    scheme, _, name = path.partition('://')
    if scheme not in _TABLES:
        return path
    known = _TABLES[scheme]()
    name = get_deprecated_model_names().get(name, name)
    if name not in known:
        raise ValueError(f'no model has the name {name!r}{did_you_mean(name, known)}')
    return known[name]
