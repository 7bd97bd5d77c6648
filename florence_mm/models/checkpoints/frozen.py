"""Checkpoints of trainings that hold what was trained alone: frozen parts of the model are left out, and put in again.

A model names such parts by its method ``left_out_parts``. Their weights come from where the config says: ``pretrained``
or ``init_cfg`` of the part. A model that is made of others names the one that is trained by ``main_part``; checkpoints
of that one alone are its own too, and all other parts have the weights that the config names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import nn


def left_out_parts(model: nn.Module) -> tuple[str, ...]:
    """Names of the frozen parts that checkpoints of a training leave out; none of a model that does not name any."""
    return tuple(model.left_out_parts()) if hasattr(model, 'left_out_parts') else ()


def without_frozen(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the tensors of these parts out of a model's state."""
    parts = tuple(f'{part}.' for part in left_out_parts(model))
    return {key: value for key, value in state.items() if not parts or not key.startswith(parts)}


def is_main_part(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether tensors of a state have names of a model's main part alone, and none has one of the whole model."""
    main = getattr(model, 'main_part', None)
    if main is None or not state.keys().isdisjoint(model.state_dict()):
        return False
    return not state.keys().isdisjoint(getattr(model, main).state_dict())


def with_frozen(model: nn.Module, state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Add the tensors of these parts to a state that lacks them, and give the model their weights.

    The state of a model's main part alone gets the names that it has in the model.

    Args:
        model: the model; a part whose ``init_cfg`` was not applied yet is initialised.
        state: tensors by key, from a checkpoint.
        path: the checkpoint, for the message.

    Raises:
        ValueError: nothing says where the weights of a part are.
    """
    state, names = dict(state), left_out_parts(model)
    main = getattr(model, 'main_part', None)
    if main is not None and is_main_part(model, state):
        state = {f'{main}.{key}': value for key, value in with_frozen(getattr(model, main), state, path).items()}
        names = tuple(name for name, _ in model.named_children() if name != main)
    for name in names:
        part = getattr(model, name)
        own = part.state_dict()
        if not own or any(key.startswith(f'{name}.') for key in state):
            continue
        if getattr(part, 'init_cfg', None) and not getattr(part, 'is_init', False):
            part.init_weights()
            own = part.state_dict()
        elif not getattr(part, 'init_cfg', None) and not getattr(part, 'has_weights', False):
            raise ValueError(
                f'{path} holds what was trained alone and lacks the {len(own)} tensors of {name}, which was frozen, '
                f'and the config names no weights for it; give model.{name} those with which it was trained, by '
                "init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...) or pretrained"
            )
        print_log(f'{path} lacks {name}, which was frozen; its weights are those that the config names', 'current')
        whole = {key: value.full_tensor() if hasattr(value, 'full_tensor') else value for key, value in own.items()}
        state |= {f'{name}.{key}': value for key, value in whole.items()}
    return state
