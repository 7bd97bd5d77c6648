"""Allow mmengine's ``AmpOptimWrapper`` on a machine without an accelerator, which bf16 does not need."""

import functools
import warnings
from types import ModuleType
from typing import Any

import torch

from .gap import Gap


def _refuses_cpu() -> bool:
    from mmengine.device import get_device
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    if get_device() != 'cpu':
        return False
    try:
        # the accelerator is asserted first, so no optimizer is needed (making one imports torch's compiler for seconds)
        amp_optimizer_wrapper.AmpOptimWrapper()
    except AssertionError:
        return True
    except TypeError:
        return False
    return False


def _accept(module: ModuleType) -> None:
    original = module.AmpOptimWrapper.__init__

    @functools.wraps(original)
    def __init__(self: Any, loss_scale: Any = 'dynamic', dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        if dtype in ('float16', torch.float16):
            raise ValueError("optim_wrapper.dtype='float16' needs a GPU; on a CPU use 'bfloat16'")
        original_check = module.is_cuda_available
        module.is_cuda_available = lambda: True
        try:
            with warnings.catch_warnings():
                # the scaler turns itself off without CUDA, and bf16 needs none
                warnings.filterwarnings('ignore', message=r'(?s).*(CUDA is not available|GradScaler)')
                original(self, loss_scale, dtype, *args, **kwargs)
        finally:
            module.is_cuda_available = original_check

    module.AmpOptimWrapper.__init__ = __init__


GAP = Gap(
    name='CPU mixed precision',
    package='mmengine',
    why='AmpOptimWrapper asserts that there is an accelerator, so bf16 training on a CPU is refused',
    needed=_refuses_cpu,
    patch=_accept,
    after='mmengine.optim.optimizer.amp_optimizer_wrapper',
)
