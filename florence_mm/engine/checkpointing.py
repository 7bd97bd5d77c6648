"""Checkpoint files: whole or absent, and one sentence where one cannot be used."""

import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from florence_mm.errors import UsageError

_NUMBERED = re.compile(r'^(?:iter|epoch)_(\d+)\.pth$')


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The bytes are on the disk before the name is: after a kill or a power cut ``path`` holds the old content or
    the new one.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def remove_unfinished(folder: str | Path) -> None:
    """Delete what a killed run left half written in ``folder``."""
    for path in Path(folder).glob('.*.pth.*.tmp'):
        path.unlink(missing_ok=True)


def find_latest(work_dir: str | Path) -> str | None:
    """The checkpoint that a run in ``work_dir`` wrote last, or None.

    ``last_checkpoint`` names it; a folder that was moved since, and a run killed between its first checkpoint
    and that file, are found too.
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


def read_checkpoint(path: str, map_location: str | Callable | torch.device = 'cpu') -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path (str): A ``.pth`` or ``.safetensors`` file, or a URL that mmengine reads.
        map_location (str, callable or torch.device): Where the tensors go.

    Returns:
        dict: With ``state_dict``; a plain state dict is put under that key.

    Raises:
        UsageError: the file does not exist, is truncated or damaged, or is no checkpoint.
    """
    try:
        if '://' in path:
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location)
        else:
            checkpoint = _read_local(Path(path).expanduser(), map_location)
    except UsageError:
        raise
    # torch raises KeyError, EOFError, UnpicklingError and others, depending on where a file is damaged
    except Exception as error:
        reason = str(error).strip().split('\n')[0].split('. ')[0] or type(error).__name__
        raise UsageError(f'{path} cannot be read as a checkpoint ({reason}); {_other_checkpoints(path)}') from error
    if not isinstance(checkpoint, dict):
        raise UsageError(f'{path} holds a {type(checkpoint).__name__}, not a checkpoint; give a state dict')
    return checkpoint if 'state_dict' in checkpoint else {'state_dict': checkpoint}


def _read_local(path: Path, map_location: Any) -> Any:
    if not path.is_file():
        raise UsageError(f'checkpoint {path} does not exist; check the path')
    if path.suffix == '.safetensors':
        from safetensors.torch import load_file

        return load_file(path, device=map_location if isinstance(map_location, (str, torch.device)) else 'cpu')
    if zipfile.is_zipfile(path):
        # torch.load does not look at the checksums that torch.save writes
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f'the checksum of {damaged} is wrong')
    return torch.load(path, map_location=map_location, weights_only=True)


def _other_checkpoints(path: str) -> str:
    others = []
    if '://' not in path:
        folder = Path(path).expanduser().parent
        others = sorted(other.name for other in folder.glob('*.pth') if other.name != Path(path).name)
    if not others:
        return 'give another file'
    return f'give another file, for example one of {", ".join(others[-3:])} beside it'
