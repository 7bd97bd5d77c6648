"""Folder of files that are kept between runs: downloaded weights, and models that were published on this machine."""

import os
from pathlib import Path

from florence_mm.errors import UsageError

_SWITCH = 'FLORENCE_MM_OFFLINE'
_CHECKOUT = Path(__file__).resolve().parents[2]


def home() -> Path:
    """Folder of kept files: ``FLORENCE_MM_HOME``, else ``~/.cache/florence_mm``; it need not exist.

    Raises:
        UsageError: ``FLORENCE_MM_HOME`` is not a folder's name, or there is no home folder to fall back on.
    """
    given = os.environ.get('FLORENCE_MM_HOME', '').strip()
    try:
        if not given and os.environ.get('HOME') == '':  # which would be the root of all folders
            raise RuntimeError
        folder = Path(given or '~/.cache/florence_mm').expanduser()
    except RuntimeError:  # of a user who has no home folder
        raise UsageError('there is no home folder; set FLORENCE_MM_HOME to a folder for downloaded weights') from None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f'{"FLORENCE_MM_HOME" if given else "the cache"} {folder} is a file; name a folder')
    return folder


def published_folders() -> list[Path]:
    """Folders in which published models are looked up, first the one that they are written to.

    Beside :func:`home` this is the cache of a checkout, where ``make quickstart`` and ``make zoo`` put models.
    """
    folders = [home() / 'models']
    if (_CHECKOUT / 'Makefile').is_file():
        folders.append(_CHECKOUT / '.cache/florence_mm/models')
    return folders


def is_offline() -> bool:
    """Whether downloads are switched off, by ``FLORENCE_MM_OFFLINE`` or the hub's own ``HF_HUB_OFFLINE``.

    Raises:
        UsageError: a switch is neither on (1) nor off (0).
    """
    return is_web_off() or _is_on('HF_HUB_OFFLINE')


def is_web_off() -> bool:
    """Whether nothing at all is read from the web, by ``FLORENCE_MM_OFFLINE``; the hub's switch is of the hub.

    Raises:
        UsageError: the switch is neither on (1) nor off (0).
    """
    return _is_on(_SWITCH)


def _is_on(name: str) -> bool:
    value = os.environ.get(name, '').strip().lower()
    if value in ('1', 'true', 'yes', 'on'):
        return True
    if value not in ('', '0', 'false', 'no', 'off'):
        raise UsageError(f'{name}={value} is neither 1 (no downloads) nor 0; set one of them')
    return False
