"""Sharding and compiling of models that know of neither: FSDP2 and torch.compile, block by block.

A config asks for it with::

    parallelize = dict(blocks=['WindowBlock', 'TextBlock'], shard=True, compile=False, param_dtype='bfloat16')

Checkpoints hold whole tensors in the layout of a run that is not sharded, so the two kinds of run resume each
other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .errors import UsageError

_OPTIONS = ('blocks', 'shard', 'compile', 'reshard_after_forward', 'param_dtype', 'reduce_dtype')
_DTYPES = ('bfloat16', 'float16', 'float32')


def parallelize(
    model: nn.Module,
    blocks: Sequence[str],
    shard: bool = False,
    compile: bool | Mapping[str, Any] = False,
    reshard_after_forward: bool = True,
    param_dtype: str | None = None,
    reduce_dtype: str | None = 'float32',
) -> nn.Module:
    """Compile and shard the blocks of a model in place.

    Args:
        model (nn.Module): With its weights initialised and on its device.
        blocks (Sequence[str]): Class names of the repeated blocks; one is gathered and compiled at a time.
        shard (bool): Split parameters, gradients and optimizer state over all processes (FSDP2). Defaults to False.
        compile (bool or dict): Compile each block; a dict holds arguments of :func:`torch.compile`. One block's
            code serves all blocks of its kind, which takes seconds where the whole model takes minutes.
        reshard_after_forward (bool): Free gathered parameters until the backward pass needs them again.
        param_dtype (str, optional): Compute with parameters of this type; None keeps theirs.
        reduce_dtype (str, optional): Sum gradients in this type; None keeps theirs. Defaults to 'float32'.

    Raises:
        UsageError: no module is of one of the classes, or an unknown type.
    """
    found = [module for module in model.modules() if type(module).__name__ in blocks]
    absent = set(blocks) - {type(module).__name__ for module in found}
    if absent or not blocks:
        kinds = sorted({type(module).__name__ for module in model.modules() if list(module.children())})
        raise UsageError(
            f'parallelize.blocks: {type(model).__name__} has no {", ".join(sorted(absent)) or "blocks named"}; it has '
            f'{", ".join(kinds)}'
        )
    if compile:
        for block in found:
            block.compile(**(compile if isinstance(compile, Mapping) else {}))
    if shard:
        policy = MixedPrecisionPolicy(
            param_dtype=_dtype('param_dtype', param_dtype), reduce_dtype=_dtype('reduce_dtype', reduce_dtype)
        )
        mesh = init_device_mesh(get_device(), (torch.distributed.get_world_size(),))
        for module in (*found, model):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward)
    return model


def _dtype(key: str, name: str | None) -> torch.dtype | None:
    if name is not None and name not in _DTYPES:
        raise UsageError(f'parallelize.{key}={name!r} is none of {", ".join(_DTYPES)}')
    return None if name is None else getattr(torch, name)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a :class:`UsageError` for a key of ``parallelize`` that there is not."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown or 'blocks' not in options:
        raise UsageError(f'parallelize must have blocks and may have {", ".join(_OPTIONS[1:])}; got {sorted(options)}')


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`parallelize` has split the model's parameters."""
    return isinstance(model, FSDPModule)


def whole_tensors(state: Any) -> Any:
    """A state with split tensors gathered, on the CPU; every process must call it, in the same order of keys."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, Mapping):
        return type(state)((key, whole_tensors(value)) for key, value in state.items())
    if isinstance(state, list):
        return [whole_tensors(item) for item in state]
    return state


def split_model_state(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Whole tensors split as the model's own are; what fits nothing stays as it is."""
    own = model.state_dict()
    return {key: _split_like(value, own.get(key)) for key, value in state.items()}


def split_optimizer_state(state: dict, optimizer: torch.optim.Optimizer) -> dict:
    """The state of an optimizer of whole parameters, split as the parameters of ``optimizer`` are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    split = {
        index: {key: _split_like(value, parameters[index]) for key, value in entry.items()}
        for index, entry in state['state'].items()
    }
    return {**state, 'state': split}


def _split_like(value: Any, own: Any) -> Any:
    # step counts and the like have another shape than their parameter and are the same on every process
    if isinstance(own, DTensor) and isinstance(value, torch.Tensor) and value.shape == own.shape:
        value = value.to(own.device)
        return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    return value
