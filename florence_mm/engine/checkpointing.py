"""Checkpoints of a run: finding the latest and reading it."""

import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import safetensors
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.contents import state_of
from florence_mm.models.checkpoints.parts import is_parts
from florence_mm.models.checkpoints.reading import MapLocation, read_file
from florence_mm.moved import moved_names

#: Ending of the name under which a sharded checkpoint waits for the one that replaces it.
ASIDE = '.aside'
_NUMBERED = re.compile(r'^(?:iter|epoch)_(\d+)(?:\.pth)?$')


def remove_unfinished(folder: str | Path) -> None:
    """Delete temporary checkpoint files that a killed run left in ``folder``."""
    for path in Path(folder).glob('.*.pth.*.tmp'):
        path.unlink(missing_ok=True)


def aside_name(name: str) -> str:
    """The name of a sharded checkpoint that is being replaced, until the new one has its place."""
    return f'.{name}{ASIDE}'


def find_latest(work_dir: str | Path) -> str | None:
    """Find the last checkpoint of a run in ``work_dir``; None if there is none.

    The file ``last_checkpoint`` names it. If the folder was moved, the file of the same name is used; without
    ``last_checkpoint``, as after a kill at the first checkpoint, the one with the highest number, and also, with a
    warning, if the file that it names is gone.

    Raises:
        UsageError: ``last_checkpoint`` names no file, and there is no other.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = None
    if pointer.is_file():
        named = pointer.read_bytes().decode(errors='replace').strip()
        name = Path(named).name
        for path in (named, str(work_dir / name), str(work_dir / aside_name(name))):
            if '://' in path or _is_there(path):
                return path
    numbered = [
        (int(match[1]), path)
        for path in work_dir.glob('*_*')
        if (match := _NUMBERED.match(path.name)) and _is_there(path)
    ]
    latest = str(max(numbered)[1]) if numbered else None
    if named is not None:
        told = f'{pointer} names {named[:80]!r}, which is no file'
        if latest is None:
            raise UsageError(f'{told}, and there is no other checkpoint; give one with --resume, or delete that file')
        print_log(f'{told}; the checkpoint with the highest number is used, {latest}', 'current', logging.WARNING)
    return latest


def _is_there(path: str | Path) -> bool:
    try:
        return Path(path).is_file() or is_parts(path)
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def read_run_checkpoint(path: str, map_location: MapLocation = 'cpu', mmap: bool = False) -> dict[str, Any]:
    """Read the whole content of a run's checkpoint; every process must call it.

    Args:
        path: file or URL, see :func:`~florence_mm.models.checkpoints.reading.read_file`.
        map_location: passed to :func:`~florence_mm.models.checkpoints.reading.read_file`.
        mmap: passed to it too.

    Returns:
        a dict with ``state_dict``; a plain state dict is put under that key.

    Raises:
        UsageError: the file does not exist, is truncated or damaged, or is not a checkpoint.
    """
    try:
        with _main_process_first() if '://' in path else nullcontext():
            checkpoint = read_file(path, map_location, mmap)
            state = state_of(checkpoint, path)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f'{error}{_other_checkpoints(path)}') from error
    # a run's state dict may have other values than tensors, of modules with extra state
    return checkpoint if isinstance(checkpoint.get('state_dict'), dict) else {'state_dict': state}


def check_resumable(
    filename: str, checkpoint: dict, model: dict[str, tuple[torch.Size, bool]], scheduled: bool
) -> None:
    """Check that a run can go on from a checkpoint.

    Args:
        filename: the checkpoint, for the message.
        checkpoint: its content.
        model: shape of each weight by its key, and whether it is of floating-point numbers.
        scheduled: whether the run has schedules.

    Raises:
        UsageError: the checkpoint lacks the state of a run, is of another model, or its weights are no finite numbers.
    """
    needed = ['meta', 'message_hub', 'optimizer', *(['param_schedulers'] if scheduled else [])]
    absent = [key for key in needed if key not in checkpoint]
    if absent:
        raise UsageError(
            f'{filename} holds no {", ".join(absent)}, so the run cannot be resumed from it; start a new run from '
            'its weights with load_from'
        )
    theirs = checkpoint['state_dict']
    differing = sorted(theirs.keys() ^ model.keys())
    differing += [key for key in theirs.keys() & model.keys() if theirs[key].shape != model[key][0]]
    if differing:
        raise UsageError(
            f'{filename} is of another model: {len(differing)} weights differ, the first is {differing[0]}; resume '
            'with the config of that run, or start a new run from its weights with load_from'
        )
    for key, weight in theirs.items():
        if weight.is_floating_point() != model[key][1]:
            raise UsageError(
                f'{filename}: {key} has {weight.dtype} numbers; resume from a checkpoint as a run wrote it'
            )
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UsageError(f'{filename}: {key} is not finite; resume from an earlier checkpoint')


@contextmanager
def _main_process_first() -> Iterator[None]:
    """Let the main process download a file first, so that the others on its machine find it in the cache."""
    if not is_main_process():
        barrier()
    try:
        yield
    finally:
        if is_main_process():
            barrier()


def _other_checkpoints(path: str) -> str:
    if '://' in path:
        return ''
    path = Path(path).expanduser()
    files = [other for suffix in ('.pth', '.safetensors') for other in path.parent.glob(f'*{suffix}')]
    others = sorted(other.name for other in files if other.name != path.name and _looks_complete(other))
    return f', or take one of {", ".join(others[-3:])} beside it' if others else ''


def _looks_complete(path: Path) -> bool:
    """Whether a checkpoint has its end, by its size or the list at its end; what is inside is not read."""
    try:
        if path.suffix == '.pth':
            return zipfile.is_zipfile(path)
        with safetensors.safe_open(path, 'pt'):
            return True
    except (OSError, safetensors.SafetensorError):
        return False


__getattr__ = moved_names(
    __name__,
    {
        'read_checkpoint': f'{__name__}:read_run_checkpoint',
        'replacing': 'florence_mm.utils.files',
        'write_text': 'florence_mm.utils.files:write_atomic',
    },
)
