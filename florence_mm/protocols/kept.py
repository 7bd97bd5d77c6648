"""Results that are kept until the checkpoint, the settings or the data of their protocol change."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.utils.digests import sha256_of
from florence_mm.utils.files import write_atomic
from florence_mm.version import __version__

from .base import Protocol

# what a figure depends on; batch size and workers change nothing beyond rounding
_DECIDING = ('model', 'data_preprocessor', 'test_cfg', 'val_cfg', 'tta_model', 'tta_pipeline', 'custom_hooks')
_NOT_DECIDING = ('batch_size', 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout')


def result_key(protocol: Protocol, cfg: Config, checkpoint: str | Path, data_root: str | Path) -> str:
    """Hash all that decides a protocol's figures: its settings, the model's config, the checkpoint and the data.

    Args:
        protocol: a dataclass, whose fields are its settings.
        cfg: the model's config as its file has it.
        checkpoint: a file, of which the content counts, or a URL.
        data_root: folder of all data sets.
    """
    settings = {
        'protocol': type(protocol).__qualname__,
        'fields': asdict(protocol) if is_dataclass(protocol) else {},
        'config': {key: cfg[key] for key in _DECIDING if key in cfg},
        'loaders': {key: _without(cfg.get(f'{key}_dataloader') or {}, _NOT_DECIDING) for key in ('val', 'test')},
        'evaluators': {key: cfg.get(f'{key}_evaluator') for key in ('val', 'test')},
        'class_names': (cfg.get('default_hooks') or {}).get('class_names'),
        'checkpoint': checkpoint_digest(str(checkpoint)),
        'data': data_state(protocol.reads(data_root), data_root),
        'version': __version__,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=_named).encode()).hexdigest()[:16]


def _without(values: Mapping[str, Any], keys: Iterable[str]) -> dict:
    return {key: value for key, value in values.items() if key not in keys}


def _named(value: Any) -> str:
    """Write a value that JSON does not know, the same in every process."""
    name = getattr(value, '__qualname__', None)
    return f'{value.__module__}.{name}' if name else str(value)


def checkpoint_digest(checkpoint: str) -> str:
    """SHA-256 of a checkpoint's content; a URL stands for itself."""
    if '://' in checkpoint:
        return checkpoint
    status = Path(checkpoint).stat()
    return _file_digest(checkpoint, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _file_digest(path: str, size: int, modified: int) -> str:
    return sha256_of(path)


def data_state(paths: Iterable[Path], data_root: str | Path) -> list[list]:
    """Describe files by size and time of change, and folders by a digest of the same of all files in them."""
    found = []
    for path in paths:
        name = os.path.relpath(path, data_root)
        if not path.exists():
            found.append([name, None])
        elif path.is_dir():
            found.append([name, _folder_digest(path)])
        else:
            status = path.stat()
            found.append([name, status.st_size, status.st_mtime_ns])
    return found


def _folder_digest(folder: Path) -> str:
    """Digest of the paths, sizes and times of change of the files in a folder and its subfolders."""
    digest = hashlib.blake2b(digest_size=16)
    waiting, seen = [('', os.fspath(folder))], set()
    while waiting:
        place, path = waiting.pop()
        if (real := os.path.realpath(path)) in seen:  # a link to a folder that was read
            continue
        seen.add(real)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = os.path.join(place, entry.name)  # noqa: PTH118
                try:
                    if entry.is_dir():
                        waiting.append((name, entry.path))
                        continue
                    status = entry.stat()
                except OSError:  # a link that leads nowhere, or to itself
                    continue
                digest.update(f'{name}\0{status.st_size}\0{status.st_mtime_ns}\n'.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def read_result(folder: str | Path, key: str) -> dict | None:
    """Read the result with this key from a protocol's folder; None if there is none, or not a whole one."""
    try:
        result = json.loads(_file(folder, key).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(result, dict) or result.get('key') != key or not isinstance(result.get('figures'), dict):
        return None
    values = (*result['figures'].values(), result.get('seconds'))
    return result if all(type(value) in (int, float) for value in values) else None


def write_result(folder: str | Path, key: str, figures: Mapping[str, float], seconds: float) -> dict:
    """Write a result to a protocol's folder, and return it."""
    result = {'key': key, 'figures': dict(figures), 'seconds': round(seconds, 2)}
    write_atomic(_file(folder, key), json.dumps(result, indent=2))
    return result


def _file(folder: str | Path, key: str) -> Path:
    return Path(folder) / f'result-{key}.json'
