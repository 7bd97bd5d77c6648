"""Checkpoints of a run: finding the latest and reading it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.contents import state_of
from florence_mm.models.checkpoints.reading import MapLocation, read_file
from florence_mm.moved import moved_names

_NUMBERED = re.compile(r'^(?:iter|epoch)_(\d+)\.pth$')


def remove_unfinished(folder: str | Path) -> None:
    """Delete temporary checkpoint files that a killed run left in ``folder``."""
    for path in Path(folder).glob('.*.pth.*.tmp'):
        path.unlink(missing_ok=True)


def find_latest(work_dir: str | Path) -> str | None:
    """Find the last checkpoint of a run in ``work_dir``; None if there is none.

    The file ``last_checkpoint`` names it. If the folder was moved, the file of the same name is used; without
    ``last_checkpoint``, as after a kill at the first checkpoint, the one with the highest number.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        named = pointer.read_text().strip()
        for path in (named, str(work_dir / Path(named).name)):
            if '://' in path or Path(path).exists():
                return path
    numbered = [(int(match[1]), path) for path in work_dir.glob('*.pth') if (match := _NUMBERED.match(path.name))]
    return str(max(numbered)[1]) if numbered else None


def read_run_checkpoint(path: str, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read the whole content of a run's checkpoint; every process must call it.

    Args:
        path: file or URL, see :func:`~florence_mm.models.checkpoints.reading.read_file`.
        map_location: passed to :func:`~florence_mm.models.checkpoints.reading.read_file`.

    Returns:
        a dict with ``state_dict``; a plain state dict is put under that key.

    Raises:
        UsageError: the file does not exist, is truncated or damaged, or is not a checkpoint.
    """
    try:
        with _main_process_first() if '://' in path else nullcontext():
            checkpoint = read_file(path, map_location)
            state = state_of(checkpoint, path)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f'{error}{_other_checkpoints(path)}') from error
    # a run's state dict may have other values than tensors, of modules with extra state
    return checkpoint if isinstance(checkpoint.get('state_dict'), dict) else {'state_dict': state}


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
    others = sorted(other.name for other in path.parent.glob('*.pth') if other.name != path.name)
    return f', or take one of {", ".join(others[-3:])} beside it' if others else ''


__getattr__ = moved_names(
    __name__,
    {
        'read_checkpoint': f'{__name__}:read_run_checkpoint',
        'replacing': 'florence_mm.utils.files',
        'write_text': 'florence_mm.utils.files:write_atomic',
    },
)
