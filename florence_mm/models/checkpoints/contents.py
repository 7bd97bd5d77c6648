"""Checks of what a checkpoint holds: tensors by name, dense, finite, and of the model's types."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from florence_mm.utils.text_files import is_encodable

from .renaming import COMPUTED, StateDict

#: Keys under which public checkpoints hold their state dict.
WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict')

#: Names of the files of a model that is cut in several, as transformers writes them.
_SHARD = re.compile(r'-(\d{5})-of-(?!0*1\.)(\d{5})\.')


def state_of(content: Mapping[str, Any], path: str | Path) -> StateDict:
    """Find the tensors of a checkpoint.

    Args:
        content: the content of the file: a state dict, alone or inside ``state_dict`` (mmengine), ``model`` (Microsoft)
            and the like.
        path: the file, for messages.

    Returns:
        the tensors by key; other values beside them are left out.

    Raises:
        ValueError: there are no tensors, a tensor's key is no text, or a tensor is sparse, nested, quantised or without
            values.
    """
    outer = content
    _say_others(content, path)
    for _ in range(2):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        content = content if inner is None else inner
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(
            f'{path} holds no tensors by name{_instead(outer, content)}; expected a state dict, alone or under one of '
            f'{", ".join(WRAPPERS)}'
        )
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise ValueError(
                f'{path} holds no tensors by name: the key {key!r} is of type {type(key).__name__}; save the state '
                'dict of a module, whose keys are texts'
            )
        if not is_encodable(key):
            raise ValueError(f'the key {key!r} in {path} is no text of Unicode; save the state dict of a module')
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            layout = f'{"nested" if value.is_nested else "sparse"} ({str(value.layout).removeprefix("torch.")})'
            kind = 'quantised' if value.is_quantized else layout
            raise ValueError(f'{key} in {path} is {kind}; save dense floating-point tensors')
        if value.is_meta:
            raise ValueError(f'{key} in {path} has a shape and no values (device meta); save the model from a device')
    return tensors


def _say_others(content: Mapping[str, Any], path: str | Path) -> None:
    """Log which other weights a file holds beside those that are read, such as averages over its training."""
    taken = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
    others = [
        key
        for key, value in content.items()
        if taken is not None and key != taken and isinstance(value, dict) and _has_weights(value)
    ]
    if others:
        text = f'{path}: the weights under {taken} are read, and those under {some(map(str, others))} are not'
        print_log(text, 'current', logging.WARNING)


def _has_weights(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and '.' in key and isinstance(value, Tensor) for key, value in content.items())


def _instead(outer: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """What a file holds that has no tensors, for the message."""
    if not outer:
        return ' (it is empty)'
    for key in WRAPPERS:
        if key in outer and not isinstance(outer[key], dict | Tensor):
            return f' ({key} is {"None" if outer[key] is None else "of type " + type(outer[key]).__name__})'
    if any(isinstance(value, np.ndarray) for value in content.values()):
        return ' (it has numpy arrays; make tensors of them with torch.from_numpy)'
    if isinstance(content.get('_modules'), dict) or any(
        isinstance(value, dict) and '_modules' in value for value in content.values()
    ):
        return ' (it has a whole module; save its state_dict())'
    return f' (it has {", ".join(map(repr, list(content)[:5]))})' if content else f' (it has {_first(outer)}, empty)'


def _first(content: Mapping[str, Any]) -> str:
    return repr(next(iter(content)))


def check_values(state: StateDict, path: str | Path) -> None:
    """Check that all values are finite.

    Args:
        state: tensors by key; those that models compute themselves may hold anything.
        path: the file, for messages.

    Raises:
        ValueError: a tensor has NaN or infinite values.
    """
    bad = [key for key, value in state.items() if not key.endswith(COMPUTED) and not _finite(value)]
    if bad:
        raise ValueError(
            f'{path} has NaN or infinite values in {len(bad)} of {len(state)} tensors, the first is {bad[0]}; take an '
            'earlier checkpoint of the run, or download the file again'
        )


def _finite(value: Tensor) -> bool:
    if not (value.is_floating_point() or value.is_complex()) or value.is_meta:
        return True
    if value.is_floating_point() and value.element_size() == 1:
        value = value.float()  # there is no test for numbers of 8 bits
    # a finite sum has finite terms, and takes a tenth of the time; that of finite terms may overflow
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def check_whole_file(state: StateDict, path: str | Path) -> None:
    """Check that a file to be converted or published holds the weights of a model, not a part of a file or none.

    Raises:
        ValueError: no tensor has floating-point values, or the file is one of several that hold a model together.
    """
    if not any(value.is_floating_point() and value.numel() for value in state.values()):
        raise ValueError(
            f'{path} has no floating-point values in its {len(state)} tensors ({some(state, 3)}), so it has no '
            'weights; save the state dict of a model'
        )
    if shard := _SHARD.search(Path(path).name):
        raise ValueError(
            f'{path} is file {int(shard[1])} of the {int(shard[2])} that hold a model together; give their folder, or '
            'the index beside them (.index.json)'
        )


def check_types(model: nn.Module, state: StateDict, path: str | Path) -> None:
    """Check that weights are floating-point numbers where the model's are.

    Raises:
        ValueError: a weight is of integers, truth values or complex numbers, and the model's is not.
    """
    own = model.state_dict()
    for key, value in state.items():
        wrong = value.is_complex() or not value.is_floating_point()
        if wrong and key in own and own[key].is_floating_point():
            raise ValueError(
                f'{key} in {path} is of type {_name(value)}, the model has {_name(own[key])}; save the weights as '
                'they are, without rounding or conversion'
            )


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix('torch.')


def some(keys: Iterable[str], shown: int = 5) -> str:
    """List the first keys, and the number of the others."""
    keys = list(keys)
    more = f' and {len(keys) - shown} more' if len(keys) > shown else ''
    return ', '.join(keys[:shown]) + more
