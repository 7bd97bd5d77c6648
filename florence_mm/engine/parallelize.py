"""Sharding (FSDP2) and compiling (torch.compile) of any model, block by block; compiling also part by part.

In a config::

    parallelize = dict(blocks=['WindowBlock', 'TextBlock'], shard=True, compile=False, param_dtype='bfloat16')
    parallelize = dict(compile=True)

Checkpoints have whole tensors in the layout of an unsharded run, so that sharded and unsharded runs can resume each
other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import parametrize

from florence_mm.errors import UsageError, shown
from florence_mm.models.protocol import FollowsWeights, LimitsScalars

from .compiling import compile_arguments, compile_parts
from .meta_init import ShardedInit

_OPTIONS = (
    *('blocks', 'shard', 'compile', 'reshard_after_forward', 'param_dtype', 'reduce_dtype'),
    *('meta_init', 'sharded_checkpoints'),
)
#: Options of the runner, of which :func:`parallelize` knows nothing.
OF_THE_RUNNER = ('meta_init', 'sharded_checkpoints')
_PARAMETRIZED = re.compile(r'(^|\.)parametrizations\.(\w+)\.original$')
#: State of torch's optimizers that is one number for a parameter of any shape, so also for one of a single number.
_COUNTS = {'step', 'mu_product', 'eta', 'mu'}
_DTYPES = ('bfloat16', 'float16', 'float32')


def parallelize(
    model: nn.Module,
    blocks: Sequence[str] = (),
    shard: bool = False,
    compile: bool | Mapping[str, Any] = False,
    reshard_after_forward: bool = True,
    param_dtype: str | None = None,
    reduce_dtype: str | None = 'float32',
    init: ShardedInit | None = None,
) -> nn.Module:
    """Compile and shard the blocks of a model in place.

    Args:
        model (nn.Module): The model, initialised and on its device.
        blocks (Sequence[str]): Class names of the repeated blocks, which are gathered and compiled one at a time. May
            be left out if the model is only compiled: then its parts are (:func:`.compiling.compile_parts`), which
            takes longer and is faster, as nothing is left between blocks.
        shard (bool): Split parameters, gradients and optimizer state over all processes (FSDP2). Defaults to False.
        compile (bool or dict): Compile each block; a dict has arguments of :func:`torch.compile`. Blocks of the same
            class, map size and shift share compiled code.
        reshard_after_forward (bool): Free gathered parameters until the backward pass needs them again.
        param_dtype (str, optional): Dtype of parameters in computations; None: that of the parameters.
        reduce_dtype (str, optional): Dtype of the reduction of gradients; None: that of the gradients. Defaults to
            'float32'.
        init (ShardedInit, optional): The context in which the model was built and initialised; with it no process ever
            holds the whole model. In a config ``meta_init=False`` does without, and each builds it whole.

    Raises:
        UsageError: the model has no module of one of the classes, or a dtype or an argument of
            :func:`torch.compile` is unknown.
    """
    if compile and not (blocks or shard):
        return compile_parts(model, compile)
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
            block.compile(**compile_arguments(compile))
    if shard:
        _give_scalars_a_dimension(model)
        policy = MixedPrecisionPolicy(
            param_dtype=_dtype('param_dtype', param_dtype), reduce_dtype=_dtype('reduce_dtype', reduce_dtype)
        )
        mesh = init_device_mesh(get_device(), (torch.distributed.get_world_size(),))
        if init is not None:
            init.to_meta(model)
        else:
            for parameter in model.parameters():  # FSDP2 splits no others, such as kernels with their channels last
                parameter.data = parameter.data.contiguous()
        for module in (*found, model):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward)
        # before that of fully_shard, which gathers
        limited = [module for module in model.modules() if isinstance(module, LimitsScalars)]
        following = [module for module in model.modules() if isinstance(module, FollowsWeights)]
        model.register_forward_pre_hook(lambda *_: _prepare_parts(limited, following), prepend=True)
        if init is not None:
            init.fill(model)
    return model


def _dtype(key: str, name: str | None) -> torch.dtype | None:
    if name is not None and name not in _DTYPES:
        raise UsageError(f'parallelize.{key}={name!r} is none of {", ".join(_DTYPES)}')
    return None if name is None else getattr(torch, name)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a :class:`UsageError` for unknown keys or other types, or without a key that does something alone."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown or not {'blocks', 'compile', 'sharded_checkpoints'} & set(options):
        raise UsageError(
            f'parallelize must have blocks, compile or sharded_checkpoints and may have {", ".join(_OPTIONS)}; got '
            f'{sorted(options)}'
        )
    blocks = options.get('blocks', ())
    if not isinstance(blocks, (list, tuple)) or not all(isinstance(name, str) for name in blocks):
        raise UsageError(f"parallelize.blocks is {shown(blocks)}; expected a list of class names, as ['WindowBlock']")
    for key in ('shard', 'reshard_after_forward', 'meta_init', 'sharded_checkpoints'):
        if not isinstance(options.get(key, False), bool):
            raise UsageError(f'parallelize.{key} is {shown(options[key])}; expected True or False')


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`parallelize` has split the model's parameters."""
    return isinstance(model, FSDPModule)


def keep_whole(model: nn.Module, whole: bool) -> None:
    """Gather all parameters of a sharded model, or shard them again.

    With whole parameters processes can run the model independently, as evaluation needs: some may have a batch less.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(not whole, recurse=False)
            if whole:
                module.unshard()
            else:
                module.reshard()


class _Scalar(nn.Module):
    """Parametrization of a 0-d parameter by one of shape (1,), as FSDP2 shards along the first axis."""

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
            # optimizers number parameters by their order, which must not change: first child, after own parameters
            module._modules = {'parametrizations': module._modules.pop('parametrizations'), **module._modules}
    if [_unsharded_name(name) for name, _ in model.named_parameters()] != order:
        raise UsageError(
            f'parallelize.shard: a 0-d parameter of {owner} stands before others of its module, which '
            'would change the order in checkpoints; define it last'
        )


def _prepare_parts(limited: Iterable[LimitsScalars], following: Iterable[FollowsWeights]) -> None:
    """Update parts of parameters before they are gathered; what is written into a gathered copy would be lost.

    0-d ones are brought back to their limits, and those that follow others move on.
    """
    for module in limited:
        for name, (low, high) in module.scalar_limits().items():
            value = module.parametrizations[name].original
            if isinstance(value, DTensor):  # it is gathered during evaluation
                value.detach().to_local().clamp_(low, high)
    for module in following:
        if module.training:
            module.follow_weights()


def _unsharded_name(key: str) -> str:
    return _PARAMETRIZED.sub(r'\1\2', key)


def unsharded_layout(model: nn.Module) -> dict[str, torch.Size]:
    """Keys and shapes of the state dict of the model without sharding."""
    return {
        _unsharded_name(key): torch.Size() if _PARAMETRIZED.search(key) else value.shape
        for key, value in model.state_dict().items()
    }


def unsharded_names(model: nn.Module) -> dict[str, str]:
    """Keys of the state dict of a model, sharded or not, by those of the model without sharding."""
    return {_unsharded_name(key): key for key in model.state_dict()}


def layout_of_parts(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a model in the unsharded layout, its tensors sharded but for 0-d ones, which are gathered."""
    return {
        _unsharded_name(key): _whole(value).reshape(()) if _PARAMETRIZED.search(key) else value
        for key, value in model.state_dict().items()
    }


def gather_model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gather the state dict of a sharded model in the unsharded layout, on the CPU; every process must call it."""
    layout = unsharded_layout(model)
    return {
        _unsharded_name(key): _whole(value).reshape(layout[_unsharded_name(key)])
        for key, value in model.state_dict().items()
    }


def gather_optimizer_state(
    state: dict, optimizer: torch.optim.Optimizer, model: nn.Module, parts: bool = False
) -> dict:
    """Gather the state dict of an optimizer in the unsharded layout, on the CPU; every process must call it.

    Args:
        state: the state dict of the wrapper of the optimizer.
        optimizer: the optimizer.
        model: the sharded model.
        parts: leave tensors sharded but for those of 0-d parameters.
    """
    scalars = _scalar_indices(optimizer, model)
    whole = {}
    for index, entry in state.get('state', {}).items():
        values = {key: value if parts and index not in scalars else _whole(value) for key, value in entry.items()}
        whole[index] = {
            key: value.reshape(()) if index in scalars and isinstance(value, torch.Tensor) else value
            for key, value in values.items()
        }
    return {**state, 'state': whole} if 'state' in state else state


def split_model_state(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Shard a state dict in the unsharded layout as the model is; keys that the model lacks are unchanged."""
    own = {_unsharded_name(key): (key, value) for key, value in model.state_dict().items()}
    split = {}
    for key, value in state.items():
        name, like = own.get(key, (key, None))
        split[name] = _split_like(value, like)
    return split


def split_optimizer_state(state: dict, optimizer: torch.optim.Optimizer) -> dict:
    """Shard an optimizer's state dict in the unsharded layout as the parameters of ``optimizer`` are."""
    parameters = _parameters(optimizer)
    split = {
        index: {key: value if key in _COUNTS else _split_like(value, parameters[index]) for key, value in entry.items()}
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
    if isinstance(value, DTensor) or not isinstance(own, DTensor) or not isinstance(value, torch.Tensor):
        return value
    if value.numel() != own.numel():
        return value
    value = value.to(own.device).reshape(own.shape)
    split = distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    # a copy, as the rows would keep the memory, or the file, of all
    return DTensor.from_local(
        split.to_local().clone(), own.device_mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride()
    )
