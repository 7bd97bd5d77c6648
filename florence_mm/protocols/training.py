"""Training of the model that a protocol needs, on one process and as its config says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import model_entries
from florence_mm.engine.checkpointing import find_latest
from florence_mm.engine.launch import build_runner, set_seed
from florence_mm.errors import UsageError
from florence_mm.utils.files import write_atomic

from .base import Entry
from .kept import checkpoint_digest
from .locations import below

# where configs look for the pretrained two towers
_TOWERS = ('work_dirs/unicl_', 'work_dirs/quickstart/')
_DONE = 'trained.json'


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which configs read, for the duration of a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def embedded_model(config: str) -> str | None:
    """Name of the model of a config file if ``publish_embedded.py`` makes its weights; None if it is another."""
    name = Path(config.rpartition(':')[2]).stem
    entry = model_entries().get(name)
    return name if entry is not None and entry.weights is not None and entry.weights.embedded else None


def training_config(entry: Entry, config: str | None = None) -> str:
    """Config by which the model of an entry is trained, ``config`` being what its user names instead of its own."""
    return entry.training or config or entry.config or ''


def training_command(entry: Entry, config: str | None = None) -> str:
    """Command that trains the model of an entry, for messages."""
    variables = ''.join(f'{name}={value} ' for name, value in entry.variables.items())
    file = training_config(entry, config).replace('florence_mm::', 'configs/')
    return f'{variables}python tools/train.py {file}'


def train(entry: Entry, config: str | None, towers: str, data_root: str | Path, folder: str | Path) -> str:
    """Train the model of an entry, or go on with a training that was stopped; a finished one is not repeated.

    Args:
        entry: the entry.
        config: config of the model instead of the entry's.
        towers: checkpoint of the two towers, in place of the pretrained ones that the config names.
        data_root: folder of all data sets.
        folder: folder of all trainings; entries that share a config and its variables share one.

    Returns:
        the checkpoint.

    Raises:
        UsageError: the config trains nothing, or data or checkpoints that it names are missing.
    """
    name = training_config(entry, config)
    with environment(entry.variables):
        cfg = load_config(name)
    if cfg.get('train_dataloader') is None:
        raise UsageError(f'{name} trains nothing; give {entry.protocol.name} a checkpoint with --task-checkpoint')
    cfg = _placed(cfg, towers, data_root)
    key = hashlib.sha256(f'{cfg.dump()}{checkpoint_digest(towers)}'.encode()).hexdigest()[:8]
    work_dir = Path(folder) / '-'.join([Path(name.rpartition(':')[2]).stem, *entry.variables.values(), key])
    done = work_dir / _DONE
    if done.exists() and Path(found := json.loads(done.read_bytes())['checkpoint']).exists():
        return found
    cfg.work_dir = str(work_dir)
    cfg.resume = work_dir.exists() and find_latest(str(work_dir)) is not None
    if cfg.resume:
        cfg.load_from = None
    set_seed(cfg, 0)
    build_runner(cfg).train()
    checkpoint = find_latest(str(work_dir))
    if checkpoint is None:
        raise UsageError(f'the training of {name} has left no checkpoint in {work_dir}; give its hook an interval')
    write_atomic(done, json.dumps({'checkpoint': checkpoint}))
    return checkpoint


def starts_from_towers(cfg: Config) -> bool:
    """Whether the model of a config starts from the weights of the pretrained two towers."""
    named = {key: cfg.get(key) for key in ('model', 'load_from')}
    return _from_towers(named, '') != named


def _placed(cfg: Config, towers: str, data_root: str | Path) -> Config:
    """Copy a config with the data below their root, and the given towers in place of those that it names."""
    content = below(cfg.to_dict(), data_root)
    for key in ('model', 'load_from'):
        if key in content:
            content[key] = _from_towers(content[key], towers)
    return Config(content, filename=cfg.filename)


def _from_towers(value: Any, towers: str) -> Any:
    if isinstance(value, str):
        return towers if value.startswith(_TOWERS) else value
    if isinstance(value, Mapping):
        return {key: _from_towers(item, towers) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_from_towers(item, towers) for item in value)
    return value
