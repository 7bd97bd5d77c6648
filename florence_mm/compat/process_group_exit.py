"""Close process groups at exit: mmengine leaves them open, and torch's threads of an open one abort the process."""

import atexit
import functools
from types import ModuleType
from typing import Any

import torch

from .gap import Gap, replace_everywhere


def _close() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _replace(module: ModuleType) -> None:
    original = module.init_dist

    @functools.wraps(original)
    def init_dist(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        atexit.register(_close)

    replace_everywhere(module, 'init_dist', init_dist)


GAP = Gap(
    name='process groups at exit',
    package='mmengine',
    why='init_dist leaves its process group open, and about one process in ten then aborts after its work is done',
    needed=lambda: True,  # shows only at exit, too late for a test
    patch=_replace,
    after='mmengine.dist.utils',
)
