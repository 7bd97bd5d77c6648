"""What configs of runs name: the run's folder and last checkpoint, and the runs that they begin with or test."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.config.metafiles import is_model_name, model_entries, model_entry
from florence_mm.errors import UsageError

_BATCH = re.compile(r'_(\d+)xb(\d+)')
#: Folder of the runs that configs name.
WORK_DIRS = 'work_dirs'
#: The config whose run has a folder of another name, and that folder.
_QUICKSTART, _QUICKSTART_RUN = 'unicl_coswin-micro_1xb64-22e_digits', 'quickstart'


def begins_with(cfg: Config) -> list[str]:
    """Checkpoints of other runs that a config begins with.

    >>> init = dict(type='florence_mm.Pretrained', checkpoint='work_dirs/quickstart/epoch_22.pth')
    >>> begins_with(Config(dict(model=dict(init_cfg=init))))
    ['work_dirs/quickstart/epoch_22.pth']
    """
    texts = [*_texts(cfg.get('model')), *_texts(cfg.get('load_from'))]
    return list(dict.fromkeys(text for text in texts if text.startswith(f'{WORK_DIRS}/')))


def trains(cfg: Config) -> bool:
    """Whether a config trains a model; one that only tests names by ``load_from`` the checkpoint of another config.

    >>> trains(Config(dict(train_cfg=None, load_from='work_dirs/quickstart/epoch_22.pth')))
    False
    """
    return cfg.get('train_cfg') is not None


def config_of(checkpoint: str) -> str:
    """Config file of the run that a config's checkpoint is from, which is named by the run's folder.

    Raises:
        UsageError: there is no such config.
    """
    name = Path(checkpoint).parent.name
    if name == _QUICKSTART_RUN:
        name = _QUICKSTART
    found = model_entry(name).config if is_model_name(name) and name in model_entries() else None
    if found is None:
        root = Path(next(iter(model_entries().values())).config).parents[1]
        found = next(iter(sorted(root.glob(f'*/{name}.py'))), None)
    if found is None:
        raise UsageError(f'{checkpoint} is of no config {name}.py; train it, or correct the path in the config')
    return str(found)


def last_checkpoint(cfg: Config) -> str:
    """Name of the file that a whole training ends with.

    >>> last_checkpoint(Config(dict(train_cfg=dict(by_epoch=True, max_epochs=6))))
    'epoch_6.pth'
    """
    train = cfg.train_cfg
    return f'iter_{train.max_iters}.pth' if 'max_iters' in train else f'epoch_{train.max_epochs}.pth'


def in_one_process(cfg: Config, name: str) -> None:
    """Give one process the samples of all those that the name of a config tells, so that a step is the same.

    >>> cfg = Config(dict(train_dataloader=dict(batch_size=32)))
    >>> in_one_process(cfg, 'blip_coswin-micro_2xb32-12e_large-digits')
    >>> cfg.train_dataloader.batch_size
    64
    """
    found = _BATCH.search(name)
    if found:
        cfg.train_dataloader.batch_size *= int(found[1])


def tested_config(cfg: Config) -> str:
    """Config file of the model that a config tests without training one.

    Raises:
        UsageError: it names no weights.
    """
    if not cfg.get('load_from'):
        raise UsageError(f'{cfg.filename} trains nothing and names no weights; set load_from, or train_cfg')
    return config_of(cfg.load_from)


def folder_of(name: str) -> str:
    """Name of the folder of a config's run; the quickstart has one of its own."""
    return _QUICKSTART_RUN if name == _QUICKSTART else name


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _texts(value)
