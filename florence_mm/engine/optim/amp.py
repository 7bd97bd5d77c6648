"""Mixed precision on any device, with loss scaling only for float16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from florence_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class FlorenceAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` with bfloat16 by default, and loss scaling only for float16.

    mmengine's always scales the loss on a GPU. bfloat16 has the exponent range of float32, so that nothing more
    underflows and the loss is not scaled by default. Checkpoints of ``OptimWrapper`` and ``AmpOptimWrapper`` load.

    Args:
        dtype: ``'bfloat16'``, or on a GPU ``'float16'``.
        loss_scale: ``'dynamic'``, a constant, or a dict of arguments of ``torch.amp.GradScaler``; None: dynamic for
            float16, no scaling for bfloat16.
        **kwargs: arguments of mmengine's ``OptimWrapper``.

    Raises:
        ValueError: ``dtype`` is another one, or float16 on a CPU; ``loss_scale`` is unknown.
    """

    def __init__(self, dtype: str = 'bfloat16', loss_scale: str | float | dict | None = None, **kwargs: object) -> None:
        # not AmpOptimWrapper's, which scales for bfloat16 too
        OptimWrapper.__init__(self, **kwargs)
        self.device_type = self.optimizer.param_groups[0]['params'][0].device.type
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f"optim_wrapper.dtype is {dtype!r}; use 'bfloat16' or 'float16'")
        if dtype == 'float16' and self.device_type == 'cpu':
            raise ValueError("optim_wrapper.dtype='float16' needs a GPU; on a CPU use 'bfloat16'")
        if loss_scale is None and dtype == 'float16':
            loss_scale = 'dynamic'
        self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
        arguments = {'enabled': loss_scale is not None}
        if isinstance(loss_scale, float):
            arguments['init_scale'] = loss_scale
        elif isinstance(loss_scale, dict):
            arguments |= loss_scale
        elif loss_scale not in (None, 'dynamic'):
            raise ValueError(f"optim_wrapper.loss_scale is {loss_scale!r}; use 'dynamic', a float, a dict or None")
        self.loss_scaler = torch.amp.GradScaler(self.device_type, **arguments)
        self.cast_dtype = getattr(torch, dtype)

    def state_dict(self) -> dict:
        """Return the optimizer's state, and the scaler's if there is one."""
        state = super().state_dict()
        if not state['loss_scaler']:
            del state['loss_scaler']
        return state

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of gradient accumulation, with autocast on the device of the parameters."""
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device_type, self.cast_dtype):
            yield
