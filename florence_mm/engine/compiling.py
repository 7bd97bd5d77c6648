"""Compiling (torch.compile) of the parts of a model: encoders, neck, fusion, dense head, each into one graph.

What a whole model does around its parts is not compiled, as it reads texts and samples, which are no tensors. Compiling
of repeated blocks, one at a time, is in :mod:`.parallelize`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import nn

from florence_mm.errors import UsageError
from florence_mm.utils.nearest import did_you_mean

#: Each image size, dtype and mode is one more graph; PyTorch gives up beyond 8 of them unless told another number.
_DEFAULTS = {'recompile_limit': 64}
_ARGUMENTS = ('fullgraph', 'dynamic', 'backend', 'mode', 'options', 'recompile_limit', 'isolate_recompiles')


def compile_arguments(options: bool | Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`torch.compile`: those given, and defaults for the others.

    Raises:
        UsageError: it has no such argument.
    """
    given = dict(options) if isinstance(options, Mapping) else {}
    for key in given:
        if key not in _ARGUMENTS:
            raise UsageError(
                f'torch.compile has no argument {key!r}{did_you_mean(key, _ARGUMENTS)}; compile takes '
                f'{", ".join(_ARGUMENTS)}'
            )
    return {**_DEFAULTS, **given}


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
        UsageError: :func:`torch.compile` has no such argument.
    """
    arguments = compile_arguments(options)
    for part in find_parts(model).values():
        part.compile(**arguments)
    return model


def compile_for_inference(model: nn.Module, options: bool | Mapping[str, Any] = True) -> nn.Module:
    """Compile the parts of a model in place for inference alone, with its weights as constants.

    On a CPU linear layers then keep their weights in the layout of their kernels, a second copy, and compute in
    bfloat16 the activation with the product. Weights that change later change no result, and there are no gradients:
    load and convert (``model.bfloat16()``) before.

    Args:
        model (nn.Module): A model with its weights, such as ``inferencer.model``; it is set to evaluation mode.
        options (bool or dict): True, or arguments of :func:`torch.compile`.

    Raises:
        UsageError: :func:`torch.compile` has no such argument.
    """
    arguments = compile_arguments(options)
    for part in find_parts(model.eval()).values():
        part.forward = _with_constant_weights(part.forward, arguments)
    return model


def _with_constant_weights(forward: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[..., Any]:
    import torch._inductor.config as inductor  # late: with it comes much of the compiler

    compiled = torch.compile(forward, **arguments)

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        # as an option of torch.compile it reaches inductor, but not dynamo, which would pass weights as inputs
        with torch.no_grad(), inductor.patch(freezing=True):
            return compiled(*args, **kwargs)

    return call
