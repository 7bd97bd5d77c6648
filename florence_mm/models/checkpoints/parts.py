"""Sharded checkpoints: a folder whose safetensors files each hold the rows of one process.

``torch.distributed.checkpoint`` writes the files (:mod:`florence_mm.engine.sharded_checkpoints`), and notes in each
where its rows belong. ``state.pth`` has what is no large tensor, and ``checkpoint.json``, written last, the sizes and
digests of all files: a folder without it is not whole. Here such a folder is read as one model, without processes.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import FOLDER_INDEX

STATE = 'state.pth'
#: What the keys of weights begin with.
WEIGHTS = 'state_dict.'
#: Key of the header in which torch.distributed.checkpoint notes the place of each tensor.
_PLACES = 'DCP_SHARDING_INFO'
_FORMAT = 'florence_mm sharded checkpoint'
_TAKE = 'take an earlier checkpoint, or copy it again'


def is_parts(path: str | Path) -> bool:
    """Whether a path is that of a whole sharded checkpoint."""
    return '://' not in str(path) and (Path(path).expanduser() / FOLDER_INDEX).is_file()


def index_of(files: dict[str, tuple[int, str]], world: int) -> str:
    """The text of ``checkpoint.json``: of each file its size in bytes and digest, and the number of processes."""
    listed = {name: {'bytes': size, 'blake2b': value} for name, (size, value) in sorted(files.items())}
    return json.dumps({'format': _FORMAT, 'version': 1, 'processes': world, 'files': listed}, indent=1)


def files_of(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Read ``checkpoint.json``, and check that the files it lists have their sizes.

    Raises:
        ValueError: it is not readable, or a file is missing, cut, or not one of them.
    """
    folder = Path(folder).expanduser()
    try:
        content = json.loads((folder / FOLDER_INDEX).read_bytes())
        listed = content['files'] if content['format'] == _FORMAT and content['version'] == 1 else None
        sizes = {name: int(entry['bytes']) for name, entry in listed.items() if isinstance(entry['blake2b'], str)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f'{folder / FOLDER_INDEX} lists no files of a sharded checkpoint; {_TAKE}') from None
    for name, size in sizes.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise ValueError(f'{folder} lacks {name}, one of the {len(sizes)} files of the checkpoint; {_TAKE}')
        if file.stat().st_size != size:
            raise ValueError(f'{file} is damaged: it has {file.stat().st_size} bytes instead of {size}; {_TAKE}')
    others = [file.name for file in folder.glob('*.safetensors') if file.name not in sizes]
    if others or STATE not in sizes:
        wrong = f'{folder} has {others[0]}, which' if others else STATE
        raise ValueError(f'{wrong} is not in the list of {folder / FOLDER_INDEX}; {_TAKE}')
    return listed


def check_digests(folder: str | Path, names: Iterable[str]) -> str | None:
    """Compare files with their digests; returns a sentence on the first that differs."""
    listed = files_of(folder)
    for name in names:
        if blake2b_of(Path(folder).expanduser() / name) != listed[name]['blake2b']:
            return f'{Path(folder) / name} is damaged: it has not the digest in {FOLDER_INDEX}; {_TAKE}'
    return None


def read_parts(folder: str | Path) -> dict[str, Tensor]:
    """Put the weights of a sharded checkpoint together, apart from 0-d ones, which are in ``state.pth``.

    Raises:
        ValueError: a file is missing or damaged, or rows of a weight are missing.
    """
    folder = Path(folder).expanduser()
    names = [name for name in files_of(folder) if name.endswith('.safetensors')]
    if wrong := check_digests(folder, [*names, STATE]):
        raise ValueError(wrong)
    rows: dict[str, list[tuple[tuple[slice, ...], Path]]] = {}
    for name in names:
        with safetensors.safe_open(folder / name, 'pt') as opened:
            places = json.loads((opened.metadata() or {}).get(_PLACES, '{}'))
            for key in opened.keys():  # noqa: SIM118  no dict
                if key.startswith(WEIGHTS) and key in places:
                    shape = opened.get_slice(key).get_shape()
                    place = zip(places[key]['saved_offsets'], shape, strict=True)
                    rows.setdefault(key, []).append((tuple(slice(at, at + size) for at, size in place), folder / name))
    state = {}
    for key, parts in rows.items():
        shape = [max(place[axis].stop for place, _ in parts) for axis in range(len(parts[0][0]))]
        whole, filled = None, 0
        for place, file in parts:
            with safetensors.safe_open(file, 'pt') as opened:
                part = opened.get_tensor(key)
            whole = torch.empty(shape, dtype=part.dtype) if whole is None else whole
            whole[place] = part
            filled += part.numel()
        if filled != whole.numel():
            raise ValueError(f'{folder} has {filled} of the {whole.numel()} numbers of {key}; {_TAKE}')
        state[key.removeprefix(WEIGHTS)] = whole
    return state
