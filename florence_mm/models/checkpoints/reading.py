"""Reading and writing of checkpoint files, without unpickling code and with checks for damage."""

import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from florence_mm.utils.files import replacing

from .fetching import local_file

_WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict')
_CHECKSUM = 'tensors_crc32'  # our key in the header of safetensors, a format without checksums
_FOLDER = 0x10  # file attribute in a zip archive
MapLocation = str | torch.device | Callable | dict


def read_file(path: str | Path, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read the whole content of a checkpoint file; no code in it is executed.

    All reading of weights uses this function. ``torch.save`` writes checksums that ``torch.load`` does not check, so
    that a flipped byte would be a wrong weight. They are checked here first, which takes 0.7 s per GiB and a megabyte
    of memory, and leaves the file in the system's cache. Safetensors have no checksums; the one that
    :func:`write_safetensors` puts into the header is compared with the tensors, and a file without it is not checked.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``; a path or URL, see
            :func:`~florence_mm.models.checkpoints.fetching.local_file`.
        map_location: see :func:`torch.load`; for safetensors a device or its name, with a callable or dict tensors stay
            on the CPU.

    Returns:
        the saved object; for safetensors, a dict of the tensors, ``state_dict``, and the header's metadata, ``meta``:
        strings, or the dicts and lists that are written as JSON.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, is not a checkpoint or contains code, or the download fails.
    """
    with local_file(path) as file:
        if not file.is_file():
            raise FileNotFoundError(f'checkpoint {path} does not exist; give a file or a URL')
        name = str(path) if '://' not in str(path) else f'{path} (kept as {file})'
        if file.suffix == '.safetensors':
            return _read_safetensors(file, name, map_location)
        content = _read_pickled(file, name, map_location)
    if not isinstance(content, dict):
        raise ValueError(f'{name} holds a {type(content).__name__}, not a checkpoint; save a state dict')
    return content


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state dict and the metadata of a checkpoint.

    Args:
        path: see :func:`read_file`. The state dict may be the whole content or be inside it (mmengine: ``state_dict``,
            Microsoft: ``model``).

    Returns:
        the tensors by key, on the CPU, and the metadata: the header of safetensors, or mmengine's ``meta``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read by :func:`read_file`, or contains no tensors.
    """
    content: Any = read_file(path)
    meta = content.get('meta', {})
    for _ in range(2):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        content = content if inner is None else inner
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f'{path} holds no tensors by name; expected a state dict, alone or under one of {_WRAPPERS}')
    return tensors, meta if isinstance(meta, dict) else {}


def write_safetensors(path: str | Path, state: dict[str, Tensor], meta: dict[str, Any] | None = None) -> Path:
    """Write tensors, metadata and a checksum of the tensors to a safetensors file, atomically.

    Args:
        path: the file; its folder is created.
        state: tensors by key; tensors that share memory are written separately.
        meta: metadata, strings or values that JSON can represent.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    # safetensors refuses tensors that share memory
    state = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    header = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (meta or {}).items()}
    header = {'format': 'pt', **header, _CHECKSUM: _checksum(state)}
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(state, temporary, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(f'{path} cannot be written ({error}); check its rights and the disk') from None
    return Path(path)


def _read_safetensors(file: Path, name: str, map_location: MapLocation) -> dict[str, Any]:
    try:
        with safetensors.safe_open(file, 'pt') as opened:
            meta = dict(opened.metadata() or {})
        tensors = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(f'{name} is not a complete safetensors file ({error}); download or write it again') from None
    written = meta.pop(_CHECKSUM, None)
    if written is not None and written != _checksum(tensors):
        raise ValueError(
            f'{name} is damaged: its tensors do not have the checksum in its header; download or write it again'
        )
    if isinstance(map_location, (str, torch.device)):
        tensors = {key: value.to(map_location) for key, value in tensors.items()}
    return {'state_dict': tensors, 'meta': {key: _from_header(value) for key, value in meta.items()}}


def _from_header(value: str) -> Any:
    """A dict or list that :func:`write_safetensors` wrote as JSON; other values stay strings."""
    if value[:1] in ('{', '['):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _read_pickled(file: Path, name: str, map_location: MapLocation) -> Any:
    try:
        damaged = _damaged_member(file)
        content = None if damaged else torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if 'GLOBAL ' not in str(error):
            raise ValueError(f'{name} cannot be read as a checkpoint; download or write it again') from None
        wanted = str(error).split('GLOBAL ')[1].split(' ')[0]
        raise ValueError(
            f'{name} holds more than tensors ({wanted}), and loading it could run code; '
            f'save its state dict alone, or as safetensors, where you trust it'
        ) from None
    except Exception as error:  # files that are not an archive or pickle raise errors of any type
        if isinstance(error, OSError) and error.filename:  # of the operating system: permissions or the disk
            raise
        why = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
        raise ValueError(f'{name} cannot be read as a checkpoint ({why}); download or write it again') from None
    if damaged:
        raise ValueError(f'{name} is damaged: {damaged} in it is not as it was written; download or write it again')
    return content


def _damaged_member(file: Path) -> str | None:
    """Find the first member of a zip archive whose checksum is wrong; None if there is none, or for other files."""
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.external_attr & _FOLDER:  # torch would leave the tensor's memory uninitialised
                return member.filename
        # with torch.serialization.set_crc32_options(False) all checksums are 0
        return archive.testzip() if any(member.CRC for member in members) else None


def _checksum(state: Mapping[str, Tensor]) -> str:
    """CRC-32 of keys, types, shapes and bytes, in sorted order of the keys."""
    crc = 0
    for key in sorted(state):
        value = state[key].contiguous()
        crc = zlib.crc32(f'{key} {value.dtype} {tuple(value.shape)}'.encode(), crc)
        crc = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy(), crc)
    return f'{crc:08x}'
