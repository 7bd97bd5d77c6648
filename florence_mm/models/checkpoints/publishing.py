"""Published checkpoints: the weights alone, with their origin in the header and their hash in the name."""

import hashlib
import re
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError
from florence_mm.version import __version__

from .contents import check_values, check_whole_file
from .reading import plain_meta, read_checkpoint
from .writing import write_safetensors

_HASH = re.compile(r'(.+)-([0-9a-f]{8})\.safetensors')


def publish(source: str | Path, target: str | Path, more: dict[str, Any] | None = None) -> Path:
    """Write the weights of a trained checkpoint as safetensors, atomically.

    The optimizer state and log history are dropped; the config, class names and version go into the header, and the
    first eight digits of the file's SHA-256 into its name.

    Args:
        source: a checkpoint written by training.
        target: the file to write, ``.safetensors``; the hash is added to its name.
        more: further metadata for the header.

    Returns:
        the file that was written.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, a part of a checkpoint, or has values that are not finite.
    """
    target = Path(target)
    state, meta = read_checkpoint(source)
    check_whole_file(state, source)
    check_values(state, source)
    header = {key: value for key, value in plain_meta(meta).items() if key != 'cfg'}
    header |= {'config': meta.get('cfg', meta.get('config', '')), 'florence_mm_version': __version__, **(more or {})}
    # written beside the target and renamed, so that a file of that name without a hash stays as it is
    written = write_safetensors(target.with_name(f'.{target.name}'), state, header)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    return written.replace(target.with_name(f'{target.stem}-{digest[:8]}.safetensors'))


def find_published(name: str, folders: list[Path]) -> Path | None:
    """Find the file of a published model: the newest one in the first folder that has one; None if none has.

    Args:
        name: name of the model, which the file's begins with.
        folders: folders to look in; they need not exist.
    """
    for folder in folders:
        found = [file for file in folder.glob('*.safetensors') if (m := _HASH.fullmatch(file.name)) and m[1] == name]
        if found:
            return max(found, key=lambda file: (file.stat().st_mtime_ns, file.name))
    return None


def check_published(file: Path) -> Path:
    """Check that a published file has the hash in its name.

    Raises:
        DataError: it has not.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    named = _HASH.fullmatch(file.name)
    if named is not None and named[2] != digest:
        raise DataError(f'{file} is damaged: its SHA-256 begins with {digest}; delete it and publish the model again')
    return file
