"""Leave out the device number that mmengine's ``Runner`` gives DistributedDataParallel: torch refuses it on a CPU."""

import functools
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .gap import Gap


def _on_cpu() -> bool:
    from mmengine.device import get_device

    return get_device() == 'cpu'


def _replace(module: ModuleType) -> None:
    original = module.Runner.wrap_model

    @functools.wraps(original)
    def wrap_model(self: Any, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and not module.is_model_wrapper(model):
            # explicit, as mmengine fills in the device number where the config says nothing
            cfg = {'type': 'mmengine.MMDistributedDataParallel', **(model_wrapper_cfg or {})}
            if model_wrapper_cfg is None:
                cfg['broadcast_buffers'] = False
                cfg['find_unused_parameters'] = self.cfg.get('find_unused_parameters', False)
            if issubclass(module.MODEL_WRAPPERS.get(cfg['type']), DistributedDataParallel):
                cfg.setdefault('device_ids', None)
            model_wrapper_cfg = cfg
        return original(self, model_wrapper_cfg, model)

    module.Runner.wrap_model = wrap_model


GAP = Gap(
    name='CPU data parallel',
    package='mmengine',
    why='Runner gives DistributedDataParallel a device number, which torch refuses for a model on the CPU',
    needed=_on_cpu,
    patch=_replace,
    after='mmengine.runner.runner',
)
