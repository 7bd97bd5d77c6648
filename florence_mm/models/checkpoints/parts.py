"""Sharded checkpoints: a folder whose safetensors files each hold the rows of one process.

``torch.distributed.checkpoint`` writes the files (:mod:`florence_mm.engine.sharded_checkpoints`), and notes in each
where its rows belong. ``state.pth`` has what is no large tensor, and ``checkpoint.json``, written last, the sizes and
digests of all files: a folder without it is not whole. Here such a folder is read as one model, without processes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import FOLDER_INDEX
from florence_mm.utils.numbers import is_whole

STATE = 'state.pth'
#: What the keys of weights begin with.
WEIGHTS = 'state_dict.'
#: Key of the header in which torch.distributed.checkpoint notes the place of each tensor.
_PLACES = 'DCP_SHARDING_INFO'
_FORMAT = 'florence_mm sharded checkpoint'
TAKE = 'take an earlier checkpoint, or copy it again'


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
        raise ValueError(f'{folder / FOLDER_INDEX} lists no files of a sharded checkpoint; {TAKE}') from None
    for name, size in sizes.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise ValueError(f'{folder} lacks {name}, one of the {len(sizes)} files of the checkpoint; {TAKE}')
        if file.stat().st_size != size:
            raise ValueError(f'{file} is damaged: it has {file.stat().st_size} bytes instead of {size}; {TAKE}')
    others = [file.name for file in folder.glob('*.safetensors') if file.name not in sizes]
    if others or STATE not in sizes:
        wrong = f'{folder} has {others[0]}, which' if others else STATE
        raise ValueError(f'{wrong} is not in the list of {folder / FOLDER_INDEX}; {TAKE}')
    if foreign := next((name for name in sizes if name != STATE and not name.endswith('.safetensors')), None):
        raise ValueError(f'{folder / FOLDER_INDEX} lists {foreign}, which is no safetensors file; {TAKE}')
    return listed


def check_digests(folder: str | Path, names: Iterable[str]) -> str | None:
    """Compare files with their digests; returns a sentence on the first that differs."""
    listed = files_of(folder)
    for name in names:
        if blake2b_of(Path(folder).expanduser() / name) != listed[name]['blake2b']:
            return f'{Path(folder) / name} is damaged: it has not the digest in {FOLDER_INDEX}; {TAKE}'
    return None


class Rows(NamedTuple):
    """Rows of a tensor that one file holds.

    Attributes:
        first: number of the first row in the whole tensor.
        shape: of the part.
        kind: the type of its numbers, as safetensors names it.
        file: where it is.
    """

    first: int
    shape: tuple[int, ...]
    kind: str
    file: Path


def rows_of(folder: str | Path) -> dict[str, list[Rows]]:
    """Read from the headers of all files which rows of each tensor they hold, in the order of the rows.

    Raises:
        ValueError: a file is missing or no safetensors file, a tensor has no place, or its parts leave rows out, hold
            some twice, or are of different types.
    """
    folder = Path(folder).expanduser()
    rows: dict[str, list[Rows]] = {}
    for name in files_of(folder):
        if name != STATE:
            for key, part in _rows_in(folder / name):
                rows.setdefault(key, []).append(part)
    for key, parts in rows.items():
        # a process without rows of a tensor may have written none of it, or an empty part
        filled = sorted(part for part in parts if 0 not in part.shape) or parts[:1]
        after = 0
        for part in filled:
            if part.first != after or part.shape[1:] != filled[0].shape[1:] or part.kind != filled[0].kind:
                raise ValueError(
                    f'{folder}: the part of {key} in {part.file.name} begins with row {part.first} and has the shape '
                    f'{part.shape} ({part.kind}), and does not go on from the {after} rows before it; {TAKE}'
                )
            after += part.shape[0]
        rows[key] = filled
    return rows


def shape_of(parts: Sequence[Rows]) -> tuple[int, ...]:
    """Shape of the tensor whose parts :func:`rows_of` gives."""
    return (sum(part.shape[0] for part in parts), *parts[0].shape[1:])


def _rows_in(file: Path) -> list[tuple[str, Rows]]:
    try:
        with safetensors.safe_open(file, 'pt') as opened:
            places = json.loads((opened.metadata() or {})[_PLACES])
            found = []
            for key in opened.keys():  # noqa: SIM118  no dict
                part = opened.get_slice(key)
                shape = tuple(part.get_shape())
                first, *others = places[key]['saved_offsets']
                if not is_whole(first) or any(others) or len(others) != len(shape) - 1:
                    raise TypeError(f'{key} is placed at {places[key]}')
                found.append((key, Rows(first, shape, part.get_dtype(), file)))
            return found
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{file} is no file of a sharded checkpoint, whose header has the place of each tensor '
            f'({type(error).__name__}: {error}); {TAKE}'
        ) from None


def read_parts(folder: str | Path) -> dict[str, Tensor]:
    """Put the weights of a sharded checkpoint together, apart from 0-d ones, which are in ``state.pth``.

    Raises:
        ValueError: a file is missing or damaged, or rows of a weight are missing.
    """
    folder = Path(folder).expanduser()
    if wrong := check_digests(folder, files_of(folder)):
        raise ValueError(wrong)
    state = {}
    for key, parts in rows_of(folder).items():
        if not key.startswith(WEIGHTS):
            continue
        whole = None
        for part in parts:
            with safetensors.safe_open(part.file, 'pt') as opened:
                rows = opened.get_tensor(key)
            whole = torch.empty(shape_of(parts), dtype=rows.dtype) if whole is None else whole
            whole[part.first : part.first + len(rows)] = rows
        state[key.removeprefix(WEIGHTS)] = whole
    return state


def state_in(content: Any, folder: str | Path) -> dict[str, Any]:
    """The content of ``state.pth``, which must have the weights without a dimension under ``state_dict``.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(content, dict) or not isinstance(content.get('state_dict'), dict):
        raise ValueError(f'{Path(folder) / STATE} has no state_dict, and is not of a sharded checkpoint; {TAKE}')
    return content
