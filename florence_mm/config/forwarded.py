"""Arguments that a constructor keeps, without looking at them, for a function that it calls later."""

import inspect
from collections.abc import Mapping

from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from torch import nn

from .keys import parameters_of
from .lookup import lookup
from .signatures import arguments_of

_CLIP = {'norm': nn.utils.clip_grad_norm_, 'value': nn.utils.clip_grad_value_}


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
    return None


def clip_arguments(node: Mapping) -> Mapping[str, inspect.Parameter] | None:
    """The arguments of ``optim_wrapper.clip_grad``, which depend on its type; None if there is no such type."""
    type_ = node.get('type', 'norm')
    if not isinstance(type_, str) or type_ not in _CLIP:
        return None
    return parameters_of(_CLIP[type_], 'parameters')
