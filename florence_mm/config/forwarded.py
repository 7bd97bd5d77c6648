"""Arguments that a constructor keeps, without looking at them, for a function that it calls later."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from torch import nn, optim

from .keys import parameters_of, section_of
from .lookup import lookup
from .pick import type_name
from .signatures import arguments_of

_CLIP = {'norm': nn.utils.clip_grad_norm_, 'value': nn.utils.clip_grad_value_}
_MULTIPLIERS = ('bias_lr', 'bias_decay', 'norm_decay', 'dwconv_decay', 'flat_decay', 'dcn_offset_lr')
#: Keys of ``paramwise_cfg`` by the constructor of the optimizer wrapper; others read keys of their own.
_PARAMWISE = {
    'DefaultOptimWrapperConstructor': section_of(
        custom_keys=dict[str, dict], bypass_duplicate=bool, **{f'{name}_mult': float for name in _MULTIPLIERS}
    ),
    'NoDecayOptimWrapperConstructor': section_of(
        **dict.fromkeys(('no_decay', 'orthogonal'), list[str]),
        **dict.fromkeys(('lr_mult', 'decay_mult'), dict[str, float]),
        decay_vectors=bool,
    ),
}
#: Keys of the dicts in mmengine's ``custom_keys``.
CUSTOM_KEY = section_of(lr_mult=float, decay_mult=float)
#: Classes whose arguments a dict without type has, by the class that builds it and its argument.
_DEFAULT_TYPES = {('CLIPTokenEncoder', 'tower'): 'CLIPTextTower', ('FusionITMHead', 'hard_negatives'): 'UniCL'}


def kept_arguments(cls: type, node: Mapping, scope: str) -> Mapping[str, inspect.Parameter] | None:
    """The arguments that ``cls`` takes in ``**kwargs`` and passes on later; None if this is not known.

    Args:
        cls (type): A class that keeps its ``**kwargs``.
        node (Mapping): The dict that describes the object.
        scope (str): Scope in which types are looked up.
    """
    names = {parent.__name__ for parent in cls.__mro__ if parent.__module__.startswith('mmengine.')}
    if 'CheckpointHook' in names:
        return parameters_of(Runner.save_checkpoint, 'self', 'out_dir', 'filename', 'meta')
    if 'EMAHook' in names:
        type_ = node.get('ema_type', ExponentialMovingAverage)
        average = lookup('MODELS', type_, scope) if isinstance(type_, str) else type_
        found = arguments_of(average) if average is not None else None
        return found.known if found is not None and found.complete else None
    if issubclass(cls, optim.Optimizer):  # subclasses hand options on to torch's
        return next(arguments_of(parent).known for parent in cls.__mro__ if parent.__module__.startswith('torch.'))
    return None


def default_type(owner: type, key: str, node: Any) -> Any:
    """A dict without type, with the type that ``owner`` gives it if there is one."""
    type_ = _DEFAULT_TYPES.get((getattr(owner, '__name__', None), key))
    return {'type': type_, **node} if type_ and isinstance(node, Mapping) and 'type' not in node else node


def paramwise_arguments(wrapper: Mapping) -> Mapping[str, inspect.Parameter] | None:
    """The keys of ``paramwise_cfg`` of an optimizer wrapper; None if its constructor is not known."""
    constructor = wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
    return _PARAMWISE.get(type_name({'type': constructor}))


def clip_arguments(node: Mapping) -> Mapping[str, inspect.Parameter] | None:
    """The arguments of ``optim_wrapper.clip_grad``, which depend on its type; None if there is no such type."""
    type_ = node.get('type', 'norm')
    if not isinstance(type_, str) or type_ not in _CLIP:
        return None
    return parameters_of(_CLIP[type_], 'parameters')
