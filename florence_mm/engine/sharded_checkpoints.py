"""Writing and reading of sharded checkpoints, each process its rows, by ``torch.distributed.checkpoint``.

A checkpoint is a folder in the format of :mod:`florence_mm.models.checkpoints.parts`. Its tensors have the names and
shapes of an unsharded run, so that any number of processes reads it.
"""

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, broadcast_object_list, get_dist_info, is_main_process
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.parts import (
    STATE,
    TAKE,
    WEIGHTS,
    check_digests,
    files_of,
    index_of,
    rows_of,
    state_in,
)
from florence_mm.models.checkpoints.reading import read_file
from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import FOLDER_INDEX, flush_folder, is_temporary, temporary_name, write_atomic

from .checkpointing import ASIDE, aside_name

_OPTIMIZER = 'optimizer.'
_ENTRY = re.compile(r'optimizer\.(\d+)\.(.+)')


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Replace a folder by the one that is yielded, once all processes have left it; every process must enter it.

    A killed run leaves the old folder or the new one: the old is put aside under a name from which
    :func:`restore_aside` brings it back, if the new one has not taken its place.
    """
    names = [temporary_name(path)]
    broadcast_object_list(names)
    temporary = names[0]
    if is_main_process():
        temporary.mkdir(parents=True)
    barrier()
    try:
        yield temporary
        _finish(temporary)
        if is_main_process():
            aside = path.with_name(aside_name(path.name))
            if path.exists():
                path.rename(aside)
            temporary.rename(path)
            flush_folder(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        barrier()
    finally:
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)


def _finish(folder: Path) -> None:
    """Write the list of all files, to which each process gives its own."""
    rank, world = get_dist_info()
    files = [*folder.glob(f'shard-{rank + 1:05d}-*.safetensors'), *[folder / STATE] * (rank == 0)]
    own = {file.name: (file.stat().st_size, blake2b_of(file)) for file in files}
    listed = {name: entry for every in all_gather_object(own) for name, entry in every.items()}
    if is_main_process():
        write_atomic(folder / FOLDER_INDEX, index_of(listed, world))
        flush_folder(folder)


def restore_aside(folder: str | Path) -> None:
    """Bring back checkpoints that a killed run had put aside, and delete folders that it had not finished."""
    for aside in Path(folder).glob(f'.*{ASIDE}'):
        path = aside.with_name(aside.name.removeprefix('.').removesuffix(ASIDE))
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(path)
    for unfinished in Path(folder).glob('.*'):
        if is_temporary(unfinished.name) and unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)


def write_tensors(folder: Path, weights: Mapping[str, Any], optimizer: Mapping[str, Any] | None) -> tuple[dict, dict]:
    """Write this process's rows of weights and optimizer state; every process must call it.

    Args:
        folder: where the files go.
        weights: the state dict, in the unsharded layout.
        optimizer: the optimizer's, or None.

    Returns:
        what is no tensor, or has no dimension, of both, for ``state.pth``.
    """
    large = {f'{WEIGHTS}{key}': value for key, value in weights.items() if _is_large(value)}
    files = dict.fromkeys(large, 1)
    small = {key: value for key, value in weights.items() if not _is_large(value)}
    left: dict = {}
    if optimizer is not None:
        left = {**optimizer, 'state': {index: {} for index in optimizer.get('state', {})}}
        for index, entry in optimizer.get('state', {}).items():
            for key, value in entry.items():
                if _is_large(value):
                    large[f'{_OPTIMIZER}{index}.{key}'] = value
                else:
                    left['state'][index][key] = value
    files.update(dict.fromkeys(large.keys() - files.keys(), 2))
    with _words_of_torch():
        writer = dcp.HuggingFaceStorageWriter(str(folder), files, save_distributed=True)
        dcp.save(large, storage_writer=writer, no_dist=not distributed.is_initialized())
    return small, left


def read_checkpoint_parts(
    folder: str | Path, model: nn.Module, names: Mapping[str, str], optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    """Read a sharded checkpoint, of sharded tensors only this process's rows; every process must call it.

    Args:
        folder: the checkpoint.
        model: the run's model.
        names: its keys by their names in the unsharded layout.
        optimizer: the run's, if its state is wanted.

    Returns:
        the content of a checkpoint in the unsharded layout, with tensors that are sharded as those of the run are.

    Raises:
        UsageError: a file is missing or damaged.
    """
    rank, world = get_dist_info()
    folder, content, wrong = Path(folder).expanduser(), {}, None
    try:
        wrong = check_digests(folder, list(files_of(folder))[rank::world])
        content = _content_of(folder, optimizer is not None)
    except ValueError as error:
        wrong = wrong or str(error)
    wrong = next((one for one in all_gather_object(wrong) if one), None)
    if wrong:
        raise UsageError(wrong)
    reader = dcp.HuggingFaceStorageReader(str(folder))
    state = model.state_dict()
    parameters = [] if optimizer is None else [value for group in optimizer.param_groups for value in group['params']]
    targets: dict[str, Tensor] = {}
    for key, found in reader.read_metadata().state_dict_metadata.items():
        if key.startswith(WEIGHTS):
            name = key.removeprefix(WEIGHTS)
            like = state.get(names.get(name, name))
        elif optimizer is None or 'optimizer' not in content:
            continue
        else:
            index, _ = _optimizer_entry(key)
            like = parameters[index] if index < len(parameters) else None
        kind = found.properties.dtype
        if isinstance(like, DTensor) and like.shape == found.size:
            targets[key] = torch.zeros_like(like, dtype=kind, requires_grad=False)
        else:
            targets[key] = torch.empty(found.size, dtype=kind)
    with _words_of_torch():
        dcp.load(targets, storage_reader=reader, no_dist=not distributed.is_initialized())
    for key, value in targets.items():
        if key.startswith(WEIGHTS):
            content['state_dict'][key.removeprefix(WEIGHTS)] = value
        else:
            index, entry = _optimizer_entry(key)
            content['optimizer']['state'][index][entry] = value
    # in the order of the model, as a file has them
    order = {name: number for number, name in enumerate(names)}
    content['state_dict'] = dict(sorted(content['state_dict'].items(), key=lambda item: order.get(item[0], len(order))))
    return content


def _content_of(folder: Path, resumes: bool) -> dict[str, Any]:
    """What is no large tensor; for a run that resumes, all large ones have their place in it.

    Raises:
        ValueError: the files are not those of one checkpoint.
    """
    rows = rows_of(folder)
    content = state_in(read_file(folder / STATE), folder)
    if not (resumes and 'optimizer' in content):
        return content
    state = content['optimizer'].get('state', {})
    for key in rows:
        found = _ENTRY.fullmatch(key)
        if not key.startswith(WEIGHTS) and (found is None or int(found[1]) not in state):
            raise ValueError(f'{folder} has {key}, which is no weight and of no optimizer state in {STATE}; {TAKE}')
    return content


def _optimizer_entry(key: str) -> tuple[int, str]:
    """Number of the parameter, and what of its state the key names."""
    found = _ENTRY.fullmatch(key)
    return int(found[1]), found[2]


def _is_large(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


@contextmanager
def _words_of_torch() -> Iterator[None]:
    """Raise the error itself where torch collects those of all processes; do without its warning about one process."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'torch.distributed is disabled')
            yield
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first from error
