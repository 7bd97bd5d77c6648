"""Sharding and compiling of models that know of neither: FSDP2 and torch.compile, block by block.

A config asks for it with::

    parallelize = dict(blocks=['WindowBlock', 'TextBlock'], shard=True, compile=False, param_dtype='bfloat16')

Checkpoints hold whole tensors in the layout of a run that is not sharded, so the two kinds of run resume each
other.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import parametrize

from florence_mm.errors import UsageError

_OPTIONS = ('blocks', 'shard', 'compile', 'reshard_after_forward', 'param_dtype', 'reduce_dtype')
_PARAMETRIZED = re.compile(r'(^|\.)parametrizations\.(\w+)\.original$')
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
        _give_scalars_a_dimension(model)
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


def keep_whole(model: nn.Module, whole: bool) -> None:
    """Gather all parameters of a sharded model and keep them so, or split them again.

    Processes may then run it without each other, as evaluation does: the last process may have a batch less.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(not whole, recurse=False)
            if whole:
                module.unshard()
            else:
                module.reshard()


class _Scalar(nn.Module):
    """A 0-d parameter kept as one with a dimension, since FSDP2 splits along the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(())

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1)


def _give_scalars_a_dimension(model: nn.Module) -> None:
    owner, order = type(model).__name__, [name for name, _ in model.named_parameters()]
    for module in list(model.modules()):
        names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.ndim == 0]
        for name in names:
            parametrize.register_parametrization(module, name, _Scalar())
        if names:
            # optimizers number parameters by their order, so that has to stay: first child, behind own parameters
            module._modules = {'parametrizations': module._modules.pop('parametrizations'), **module._modules}
    if [_usual_name(name) for name, _ in model.named_parameters()] != order:
        raise UsageError(
            f'parallelize.shard: a 0-d parameter of {owner} stands before others of its module, which '
            'would change the order in checkpoints; define it last'
        )


def _usual_name(key: str) -> str:
    return _PARAMETRIZED.sub(r'\1\2', key)


def usual_layout(model: nn.Module) -> dict[str, torch.Size]:
    """Keys and shapes of the model's state as it would be without sharding."""
    return {
        _usual_name(key): torch.Size() if _PARAMETRIZED.search(key) else value.shape
        for key, value in model.state_dict().items()
    }


def gather_model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a sharded model in the usual layout, on the CPU; every process must call it."""
    layout = usual_layout(model)
    return {
        _usual_name(key): _whole(value).reshape(layout[_usual_name(key)]) for key, value in model.state_dict().items()
    }


def gather_optimizer_state(state: dict, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict:
    """The state of an optimizer in the usual layout, on the CPU; every process must call it."""
    scalars = _scalar_indices(optimizer, model)
    whole = {}
    for index, entry in state.get('state', {}).items():
        values = {key: _whole(value) for key, value in entry.items()}
        whole[index] = {
            key: value.reshape(()) if index in scalars and isinstance(value, torch.Tensor) else value
            for key, value in values.items()
        }
    return {**state, 'state': whole} if 'state' in state else state


def split_model_state(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """A state in the usual layout, named and split as the model's own; what fits nothing stays as it is."""
    own = {_usual_name(key): (key, value) for key, value in model.state_dict().items()}
    split = {}
    for key, value in state.items():
        name, like = own.get(key, (key, None))
        split[name] = _split_like(value, like)
    return split


def split_optimizer_state(state: dict, optimizer: torch.optim.Optimizer) -> dict:
    """The state of an optimizer in the usual layout, split as the parameters of ``optimizer`` are."""
    parameters = _parameters(optimizer)
    split = {
        index: {key: value if key == 'step' else _split_like(value, parameters[index]) for key, value in entry.items()}
        for index, entry in state['state'].items()
    }
    return {**state, 'state': split}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


def _scalar_indices(optimizer: torch.optim.Optimizer, model: nn.Module) -> set[int]:
    scalars = {id(value) for key, value in model.named_parameters() if _PARAMETRIZED.search(key)}
    return {index for index, parameter in enumerate(_parameters(optimizer)) if id(parameter) in scalars}


def _whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _split_like(value: Any, own: Any) -> Any:
    if isinstance(own, DTensor) and isinstance(value, torch.Tensor) and value.numel() == own.numel():
        value = value.to(own.device).reshape(own.shape)
        return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    return value
