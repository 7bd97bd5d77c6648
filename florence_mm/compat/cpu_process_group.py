"""Open process groups on a machine without a GPU, where mmengine fails to set a CUDA device first."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from .gap import Gap, replace_everywhere


@contextmanager
def _no_device() -> Iterator[None]:
    """Inside the block choosing a CUDA device does nothing, and the number of devices is 1."""
    cuda = torch.cuda
    originals = cuda.set_device, cuda.device_count
    cuda.set_device, cuda.device_count = (lambda device: None), (lambda: 1)
    try:
        yield
    finally:
        cuda.set_device, cuda.device_count = originals


def _replace(module: ModuleType) -> None:
    original = module.init_dist

    @functools.wraps(original)
    def init_dist(launcher: str, backend: str = 'nccl', *args: Any, **kwargs: Any) -> None:
        # nccl needs a GPU; gloo is the CPU backend that every torch has
        with _no_device():
            original(launcher, 'gloo' if backend == 'nccl' else backend, *args, **kwargs)

    replace_everywhere(module, 'init_dist', init_dist)


GAP = Gap(
    name='CPU process groups',
    package='mmengine',
    why='init_dist calls torch.cuda.set_device, which raises on a machine without a GPU',
    needed=lambda: not torch.cuda.is_available(),
    patch=_replace,
    after='mmengine.dist.utils',
)
