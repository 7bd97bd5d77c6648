"""Mixed precision on any device, without loss scaling where the number format needs none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from florence_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class FlorenceAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` with bf16 by default, and with loss scaling only where the format needs it.

    mmengine's always scales the loss on a GPU. bf16 has the exponents of fp32, so nothing underflows that fp32 would
    hold, and no scaling is done unless asked for. Checkpoints of ``OptimWrapper`` and ``AmpOptimWrapper`` load.

    Args:
        dtype: ``'bfloat16'``, or ``'float16'`` on a GPU.
        loss_scale: None: dynamic for float16, none for bfloat16. ``'dynamic'``, a constant, or a dict of arguments
            of ``torch.amp.GradScaler``.
        **kwargs: those of mmengine's ``OptimWrapper``.

    Raises:
        ValueError: another ``dtype``, or float16 on a CPU.
    """

    def __init__(self, dtype: str = 'bfloat16', loss_scale: str | float | dict | None = None, **kwargs: object) -> None:
        # not AmpOptimWrapper's, which scales for bf16 too
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
        """The optimizer's state, and the scaler's if there is one."""
        state = super().state_dict()
        if not state['loss_scaler']:
            del state['loss_scaler']
        return state

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Gradient accumulation's context, with autocast on the device of the parameters."""
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device_type, self.cast_dtype):
            yield
