"""Checkpoints of trainings that hold what was trained alone: frozen parts of the model are left out, and put in again.

A model names such parts by its method ``left_out_parts``. Their weights come from where the config says: ``pretrained``
or ``init_cfg`` of the part.
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


def with_frozen(model: nn.Module, state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Add the tensors of these parts to a state that lacks them, and give the model their weights.

    Args:
        model: the model; a part whose ``init_cfg`` was not applied yet is initialised.
        state: tensors by key, from a checkpoint.
        path: the checkpoint, for the message.

    Raises:
        ValueError: nothing says where the weights of a part are.
    """
    state = dict(state)
    for name in left_out_parts(model):
        part = getattr(model, name)
        own = part.state_dict()
        if not own or any(key.startswith(f'{name}.') for key in state):
            continue
        if getattr(part, 'init_cfg', None) and not getattr(part, 'is_init', False):
            part.init_weights()
            own = part.state_dict()
        elif not getattr(part, 'init_cfg', None) and not getattr(part, 'has_weights', False):
            raise ValueError(
                f'{path} holds what was trained alone and lacks the {len(own)} tensors of {name}, which was frozen, and '
                f'the config names no weights for it; give model.{name} those with which it was trained, by '
                f"init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...) or pretrained"
            )
        print_log(f'{path} lacks {name}, which was frozen; its weights are those that the config names', 'current')
        whole = {key: value.full_tensor() if hasattr(value, 'full_tensor') else value for key, value in own.items()}
        state |= {f'{name}.{key}': value for key, value in whole.items()}
    return state
