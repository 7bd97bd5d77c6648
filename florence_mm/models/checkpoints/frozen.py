"""Checkpoints of trainings that hold what was trained alone: frozen parts of the model are left out, and put in again.

A model names such parts by its method ``left_out_parts``. Their weights come from where the config says: ``pretrained``
or ``init_cfg`` of the part. A model that is made of others names the one that is trained by ``main_part``; checkpoints
of that one alone are its own too, and all other parts have the weights that the config names.

A checkpoint keeps a few numbers of each part that it leaves out, by which other weights than those of the training are
noticed when it is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

#: Key of a checkpoint's metadata for the numbers of the parts that it leaves out.
SAMPLES = 'frozen_samples'
#: Key of a checkpoint for averaged weights, by mmengine's ``EMAHook``, and what their names begin with.
_AVERAGED, _MODULE = 'ema_state_dict', 'module.'
_TENSORS, _VALUES = 16, 4  # at most so many tensors of a part, and numbers of each
_ROUNDING = 0.01  # relative: a part may be loaded in a narrower type than it was trained with


def left_out_parts(model: nn.Module) -> tuple[str, ...]:
    """Names of the frozen parts that checkpoints of a training leave out; none of a model that does not name any."""
    return tuple(model.left_out_parts()) if hasattr(model, 'left_out_parts') else ()


def without_frozen(model: nn.Module, state: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Leave the tensors of these parts out of a model's state, whose keys may begin with a prefix."""
    parts = tuple(f'{prefix}{part}.' for part in left_out_parts(model))
    return {key: value for key, value in state.items() if not parts or not key.startswith(parts)}


def frozen_samples(model: nn.Module, state: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Take a few numbers of each part of a model's state that a checkpoint leaves out, by part and key."""
    found = {}
    for part in left_out_parts(model):
        start = f'{part}.'
        floating = {
            key.removeprefix(start): value
            for key, value in sorted(state.items())
            if key.startswith(start) and isinstance(value, Tensor) and value.is_floating_point() and value.numel()
        }
        keys = list(floating)
        chosen = keys[:: max(1, -(-len(keys) // _TENSORS))]
        if chosen:
            found[part] = {key: _sample(floating[key]) for key in chosen}
    return found


def _sample(value: Tensor) -> list[float]:
    places = torch.arange(1, 2 * _VALUES, 2, device=value.device) * value.numel() // (2 * _VALUES)
    return [float(value.numel()), *value.detach().flatten()[places].float().tolist()]


def _check_samples(name: str, own: Mapping[str, Tensor], kept: Mapping[str, list[float]], path: str | Path) -> None:
    differ = [key for key, numbers in kept.items() if key not in own or not _alike(_sample(own[key]), numbers)]
    if differ:
        raise ValueError(
            f'{path} was trained with another {name}: {len(differ)} of the {len(kept)} tensors that it knows '
            f"differ from the config's, as {differ[0]}; give model.{name} the weights with which it was trained"
        )


def _alike(mine: list[float], kept: list[float]) -> bool:
    largest = max(map(abs, kept[1:]))
    return mine[0] == kept[0] and all(
        abs(a - b) <= _ROUNDING * max(abs(b), _ROUNDING * largest) for a, b in zip(mine[1:], kept[1:], strict=True)
    )


def is_main_part(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether tensors of a state have names of a model's main part alone, and none has one of the whole model."""
    main = getattr(model, 'main_part', None)
    if main is None or not state.keys().isdisjoint(model.state_dict()):
        return False
    return not state.keys().isdisjoint(getattr(model, main).state_dict())


def with_frozen(
    model: nn.Module, state: Mapping[str, Any], path: str | Path, meta: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Add the tensors of these parts to a state that lacks them, and give the model their weights.

    The state of a model's main part alone gets the names that it has in the model.

    Args:
        model: the model; a part whose ``init_cfg`` was not applied yet is initialised.
        state: tensors by key, from a checkpoint.
        path: the checkpoint, for the message.
        meta: its metadata, with the numbers of :func:`frozen_samples`.

    Raises:
        ValueError: nothing says where the weights of a part are, or they are not those of the training.
    """
    state, names = dict(state), left_out_parts(model)
    main = getattr(model, 'main_part', None)
    if main is not None and is_main_part(model, state):
        inner = with_frozen(getattr(model, main), state, path, meta)
        state = {f'{main}.{key}': value for key, value in inner.items()}
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
        _check_samples(name, whole, (meta or {}).get(SAMPLES, {}).get(name, {}), path)
        state |= {f'{name}.{key}': value for key, value in whole.items()}
    return state


def leave_out_frozen(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Leave the frozen parts out of a run's checkpoint, averaged weights too, and note numbers of them."""
    state = checkpoint['state_dict']
    if samples := frozen_samples(model, state):
        checkpoint['meta'][SAMPLES] = samples
    checkpoint['state_dict'] = without_frozen(model, state)
    if _AVERAGED in checkpoint:
        checkpoint[_AVERAGED] = without_frozen(model, checkpoint[_AVERAGED], _MODULE)


def put_in_frozen(model: nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Add to a run's checkpoint the frozen parts that it lacks, see :func:`with_frozen`."""
    lacking = checkpoint['state_dict']
    state = checkpoint['state_dict'] = with_frozen(model, lacking, path, checkpoint.get('meta'))
    if _AVERAGED in checkpoint:
        added = {f'{_MODULE}{key}': value for key, value in state.items() if key not in lacking}
        checkpoint[_AVERAGED] = {**added, **checkpoint[_AVERAGED]}
