"""Reading of checkpoint files, without unpickling code and with checks for damage."""

import json
import logging
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from mmengine.logging import print_log
from torch import Tensor

from florence_mm.moved import moved_names

from .contents import some, state_of
from .fetching import local_file
from .parts import STATE, is_parts, read_parts, state_in
from .scripts import UnreadableScript, is_script, read_script
from .sharded import is_index, shards_of, weights_in
from .unpickling import UnsafeContent, read_inert
from .writing import CHECKSUM, checksum

__getattr__ = moved_names(__name__, {'write_safetensors': 'florence_mm.models.checkpoints.writing'})

_FOLDER = 0x10  # file attribute in a zip archive
MapLocation = str | torch.device | Callable | dict


def read_file(path: str | Path, map_location: MapLocation = 'cpu', mmap: bool = False) -> dict[str, Any]:
    """Read the whole content of a checkpoint file; no code in it is executed.

    All reading of weights uses this function. Objects of other packages beside the tensors are not made: their plain
    values are kept, and a warning names them (:mod:`~florence_mm.models.checkpoints.unpickling`).

    ``torch.save`` writes checksums that ``torch.load`` does not check, so that a flipped byte would be a wrong weight.
    They are checked here first, which takes 0.7 s per GiB and a megabyte of memory, and leaves the file in the system's
    cache. Safetensors have no checksums; the one that :mod:`.writing` puts into the header is compared with
    the tensors. A file without checksums is not checked, which is logged.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``; a path or URL, see
            :func:`~florence_mm.models.checkpoints.fetching.local_file`; or the folder of a sharded checkpoint.
        map_location: see :func:`torch.load`; for safetensors a device or its name, with a callable or dict tensors stay
            on the CPU.
        mmap: leave the tensors of :func:`torch.save` in the file until they are used, as those of safetensors are; it
            must not be written over as long as they live.

    Returns:
        the saved object; for safetensors, a dict of the tensors, ``state_dict``, and the header's metadata, ``meta``:
        strings, or the dicts and lists that are written as JSON.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, is not a checkpoint or contains code, or the download fails.
    """
    with local_file(path) as file:
        if is_parts(file):
            content = state_in(read_file(file / STATE, map_location), file)
            return {**content, 'state_dict': {**read_parts(file), **content['state_dict']}}
        if not file.is_file():
            raise FileNotFoundError(f'checkpoint {path} does not exist; give a file or a URL')
        name = str(path) if '://' not in str(path) else f'{path} (kept as {file})'
        if _is_safetensors(file):
            return _read_safetensors(file, name, map_location)
        content = _read_pickled(file, name, map_location, mmap)
    if not isinstance(content, dict):
        kind = 'a module or another object' if content is None else f'a {type(content).__name__}'
        raise ValueError(f'{name} holds {kind}, not a checkpoint; save a state dict')
    return content


def read_checkpoint(path: str | Path, mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state dict and the metadata of a checkpoint.

    Args:
        path: see :func:`read_file`; also a folder of transformers or open_clip, or the index of a model in several
            files. The state dict may be the whole content or be inside it (mmengine: ``state_dict``, Microsoft:
            ``model``).
        mmap: see :func:`read_file`.

    Returns:
        the tensors by key, on the CPU, and the metadata: the header of safetensors, or mmengine's ``meta``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read by :func:`read_file`, or contains no tensors.
    """
    path = weights_in(path)
    if is_index(path):
        return _read_shards(path)
    content = read_file(path, mmap=mmap)
    meta = content.get('meta', {})
    return state_of(content, path), meta if isinstance(meta, dict) else {}


def _read_shards(index: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all files of an index; the metadata is that of the first.

    Raises:
        ValueError: a file does not hold the tensors that the index says.
    """
    whole, meta = {}, {}
    for file, keys in shards_of(index).items():
        state, found = read_checkpoint(file)
        if set(state) != keys:
            wrong = min(set(state) ^ keys)
            raise ValueError(f'{file} and {Path(index).name} disagree on {wrong}; download the model again')
        whole, meta = whole | state, meta or found
    return whole, meta


def plain_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """The metadata that a file's header can hold: texts, numbers, and dicts and lists that JSON represents."""
    kept = {}
    for key, value in meta.items():
        with suppress(TypeError, ValueError):
            json.dumps(value)
            kept[str(key)] = value
    return kept


def _is_safetensors(file: Path) -> bool:
    """Whether a file is of safetensors, by its name, or by its first bytes where it has another name.

    Raises:
        ValueError: it is named so and is a zip archive.
    """
    with file.open('rb') as opened:
        head = opened.read(9)
    if file.suffix != '.safetensors':
        return len(head) == 9 and head[8:] == b'{' and int.from_bytes(head[:8], 'little') < file.stat().st_size
    if head.startswith(b'PK'):
        raise ValueError(f'{file} is a zip archive, as torch.save writes it, and no safetensors file; name it .pth')
    return True


def _say_unchecked(name: str) -> None:
    print_log(f'{name} has no checksums: a wrong byte in one of its tensors would not be seen', 'current')


def _read_safetensors(file: Path, name: str, map_location: MapLocation) -> dict[str, Any]:
    try:
        with safetensors.safe_open(file, 'pt') as opened:
            meta = dict(opened.metadata() or {})
        tensors = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(f'{name} is not a complete safetensors file ({error}); download or write it again') from None
    written = meta.pop(CHECKSUM, None)
    if written is None:
        _say_unchecked(name)
    elif written != checksum(tensors):
        raise ValueError(
            f'{name} is damaged: its tensors do not have the checksum in its header; download or write it again'
        )
    if isinstance(map_location, (str, torch.device)):
        tensors = {key: value.to(map_location) for key, value in tensors.items()}
    return {'state_dict': tensors, 'meta': {key: _from_header(value) for key, value in meta.items()}}


def _from_header(value: str) -> Any:
    """A dict or list that :mod:`.writing` wrote as JSON; other values stay strings."""
    if value[:1] in ('{', '['):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _read_pickled(file: Path, name: str, map_location: MapLocation, mmap: bool) -> Any:
    reason, damaged, content = None, None, None
    try:
        reason = _no_checkpoint(file)
        damaged = None if reason else _damaged_member(file, name)
        content = None if reason or damaged else _load(file, name, map_location, mmap)
    except UnsafeContent as error:
        raise ValueError(
            f'{name} holds more than tensors ({error}), and loading it could run code, which was not done; get its '
            'weights as safetensors, from somebody you trust'
        ) from None
    except UnreadableScript as error:
        raise ValueError(
            f'{name} is a TorchScript program whose weights cannot be read without running it ({error}); take the '
            'safetensors of the same model'
        ) from None
    except Exception as error:  # files that are not an archive or pickle raise errors of any type
        if isinstance(error, OSError) and error.filename:  # of the operating system: permissions or the disk
            raise
        reason = 'torch did not write it, or a part of it is missing'
    if reason:
        raise ValueError(f'{name} cannot be read as a checkpoint ({reason}); download or write it again')
    if damaged:
        raise ValueError(f'{name} is damaged: {damaged} in it is not as it was written; download or write it again')
    return content


def _load(file: Path, name: str, map_location: MapLocation, mmap: bool) -> Any:
    if is_script(file):
        return {'state_dict': read_script(file, map_location)}
    try:
        mmap = mmap and zipfile.is_zipfile(file)
        return torch.load(file, map_location=map_location, weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, ValueError):  # a ValueError: what compat allows was asked for something else
        content, foreign = read_inert(file, map_location)
    if foreign:
        kinds = some([f'{kind} in {where}' if where else kind for where, kind in foreign.items()])
        print_log(
            f'{name}: the tensors and plain values were read; objects of other packages were not made: {kinds}',
            'current',
            logging.WARNING,
        )
    return content


#: Beginnings of files that are often found in place of a checkpoint.
_OTHER_FILES = {
    b'version https://git-lfs': 'it is a pointer of Git LFS: fetch the file with git lfs pull',
    b'<': 'it is a page of a web site: the download was refused',
    b'{': 'it is a JSON file',
    b'\x1f\x8b': 'it is packed with gzip: unpack it first',
}


def _no_checkpoint(file: Path) -> str | None:
    """Tell by its first bytes that a file is none of torch's; None if it may be one."""
    with file.open('rb') as opened:
        head = opened.read(64)
    if not head.strip(b'\0'):
        return 'it is empty' if not file.stat().st_size else 'it begins with zeros'
    for start, reason in _OTHER_FILES.items():
        if head.lstrip().startswith(start):
            return reason
    if head.startswith(b'PK') and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if not any(member.endswith('data.pkl') for member in names):
            return 'it is a zip archive of other files'
    return None


def _damaged_member(file: Path, name: str) -> str | None:
    """Find the first member of a zip archive whose checksum is wrong; None if there is none, or for other files."""
    if not zipfile.is_zipfile(file):
        _say_unchecked(name)
        return None
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.external_attr & _FOLDER:  # torch would leave the tensor's memory uninitialised
                return member.filename
        if any(member.CRC for member in members):
            return archive.testzip()
    _say_unchecked(name)  # with torch.serialization.set_crc32_options(False) all checksums are 0
    return None
