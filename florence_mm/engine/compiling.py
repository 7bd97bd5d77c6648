"""Compiling (torch.compile) of the parts of a model: encoders, neck, fusion, dense head, each into one graph.

What a whole model does around its parts is not compiled, as it reads texts and samples, which are no tensors. Compiling
of repeated blocks, one at a time, is in :mod:`.parallelize`.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import nn

from florence_mm.errors import UsageError, shown
from florence_mm.utils.nearest import did_you_mean
from florence_mm.utils.numbers import is_whole

#: Each image size, dtype and mode is one more graph; PyTorch gives up beyond 8 of them unless told another number.
_DEFAULTS = {'recompile_limit': 64}
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    'fullgraph': (lambda value: isinstance(value, bool), 'True or False'),
    'dynamic': (lambda value: value is None or isinstance(value, bool), 'True, False or None'),
    'recompile_limit': (lambda value: is_whole(value) and value > 0, 'a whole number of at least 1'),
    'isolate_recompiles': (lambda value: isinstance(value, bool), 'True or False'),
    'options': (lambda value: value is None or isinstance(value, Mapping), 'a dict'),
}
_ARGUMENTS = ('fullgraph', 'dynamic', 'backend', 'mode', 'options', 'recompile_limit', 'isolate_recompiles')


def _any(value: Any) -> bool:
    return True


def compile_arguments(options: bool | Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`torch.compile`: those given, and defaults for the others.

    Raises:
        UsageError: :func:`torch.compile` has no such argument, or takes no such value.
    """
    if options is not True and not isinstance(options, Mapping):
        raise UsageError(f'compile is {shown(options)}; give True, or a dict of arguments of torch.compile')
    given = {} if options is True else dict(options)
    for key, value in given.items():
        if key not in _ARGUMENTS:
            raise UsageError(
                f'torch.compile has no argument {key!r}{did_you_mean(str(key), _ARGUMENTS)}; compile takes '
                f'{", ".join(_ARGUMENTS)}'
            )
        fits, expected = _VALUES.get(key, (_any, ''))
        if not fits(value):
            raise UsageError(f'compile.{key} is {shown(value)}; torch.compile takes {expected}')
    if given.get('mode') is not None and given.get('options') is not None:
        raise UsageError('compile has mode and options, of which torch.compile takes one; leave one out')
    arguments = {**_DEFAULTS, **given}
    from torch._dynamo.exc import InvalidBackend  # late: with it comes much of the compiler

    try:
        torch.compile(_any, **arguments)  # compiles at the first call
    except (RuntimeError, InvalidBackend) as error:  # a mode, backend or option that this PyTorch lacks
        raise UsageError(f'compile cannot be {given} ({str(error).split(", known options")[0]}); correct it') from None
    return arguments


def find_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Find the parts of a model that are compiled, by name: its children with parameters and layers of their own.

    Of a model inside the model, such as the detector of a zero-shot detector, those of that model. Modules in
    containers, such as METER's heads, are reached through methods and are none. A module that is no model of mmengine,
    such as a backbone, is one part. A part that two models share is listed once.
    """
    if not isinstance(model, BaseModel):
        return {'': model}
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, BaseDataPreprocessor | nn.ModuleDict | nn.ModuleList):
            continue
        if isinstance(child, BaseModel):
            found = {f'{name}.{key}': part for key, part in find_parts(child).items()}
        else:
            found = {name: child} if list(child.children()) and list(child.parameters()) else {}
        known = {id(part) for part in parts.values()}
        parts.update({key: part for key, part in found.items() if id(part) not in known})
    return parts


def compile_parts(model: nn.Module, options: bool | Mapping[str, Any] = True) -> nn.Module:
    """Compile the parts of a model in place, for training and evaluation; keys of the state dict stay.

    The first call of a part compiles it. Another image size, dtype or mode compiles it again, another batch size once
    more, and then for all batch sizes.

    Args:
        model (nn.Module): A model that a config builds, or a backbone.
        options (bool or dict): True, or arguments of :func:`torch.compile`.

    Raises:
        UsageError: :func:`torch.compile` has no such argument, or takes no such value.
    """
    arguments = compile_arguments(options)
    for part in find_parts(model).values():
        part.compile(**arguments)
    return model


def compile_for_inference(model: nn.Module, options: bool | Mapping[str, Any] = True) -> nn.Module:
    """Compile the parts of a model in place for inference alone, with its weights as constants.

    On a CPU linear layers then keep their weights in the layout of their kernels, a second copy, and compute in
    bfloat16 the activation with the product. Later the weights must not change, and there are no gradients: load and
    convert (``model.bfloat16()``) before. A part that is called in training mode or with other weights than in its
    first call raises a :class:`UsageError`; writes through ``.data`` alone are not noticed.

    Args:
        model (nn.Module): A model with its weights, such as ``inferencer.model``; it is set to evaluation mode.
        options (bool or dict): True, or arguments of :func:`torch.compile`.

    Raises:
        UsageError: :func:`torch.compile` has no such argument, or takes no such value.
    """
    arguments = compile_arguments(options)
    for part in find_parts(model.eval()).values():
        part.forward = _with_constant_weights(part, arguments)
    return model


def _with_constant_weights(part: nn.Module, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    import torch._inductor.config as inductor  # late: with it comes much of the compiler

    forward = part.forward
    compiled = torch.compile(forward, **arguments)
    known: list[tuple] = []

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        if part.training:
            raise UsageError(
                f'a {type(part).__name__} was compiled for inference and cannot be trained; build the model again'
            )
        now = _state_of(part)
        known[:] = known or [now]
        if now != known[0]:
            raise UsageError(
                f'weights of a {type(part).__name__} have changed since it was compiled with them as constants; build '
                'the model again, load its weights, and compile it then'
            )
        # as an option of torch.compile it reaches inductor, but not dynamo, which would pass weights as inputs
        with torch.no_grad(), inductor.patch(freezing=True):
            return compiled(*args, **kwargs)

    return call


def _state_of(part: nn.Module) -> tuple:
    """What changes with the weights of a part when they are loaded, converted, moved or trained."""
    tensors = itertools.chain(part.parameters(), part.buffers())
    return tuple((x.data_ptr(), x.dtype, None if x.is_inference() else x._version) for x in tensors)
