"""Fitting tensors of a checkpoint to a model with another window size, resolution, context length or axes of time."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from florence_mm.ops.position import (
    fit_relative_position_table,
    resize_position_embedding,
    resize_token_positions,
)

from .inflation import inflate
from .renaming import COMPUTED, StateDict


@dataclass
class Fitting:
    """Result of :func:`fit_state_dict`.

    Attributes:
        tensors: tensors with the shapes of the model, by key.
        resized: keys of tensors that were resized or cut, with both shapes.
        inflated: keys of image tensors that got an axis of time, with both shapes.
        unfit: keys of tensors whose shape differs from the model's and for which there is no rule.
    """

    tensors: StateDict = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    unfit: list[str] = field(default_factory=list)


def fit_state_dict(model: nn.Module, state: StateDict, more_rows: str | None = None) -> Fitting:
    """Fit tensors to the shapes of a model, by the rules of public code.

    - Weights of an image model are inflated for a video model (:mod:`~florence_mm.models.checkpoints.inflation`).
    - Relative position bias tables of another window size and absolute position embeddings of another resolution are
      interpolated: bicubic, over time linear (:mod:`florence_mm.ops.position`).
    - So are those of CLIP's image tower, apart from that of its class token; see its argument ``antialias``.
    - Position embeddings of a text encoder are cut to the first positions if the model's context is shorter.
    - Tensors that ``more_rows`` names get the model's own rows behind theirs.

    Args:
        model: the target; it is not changed.
        state: tensors under the model's names; keys that it lacks are dropped.
        more_rows: see :class:`~florence_mm.models.checkpoints.renaming.Format`.

    Raises:
        ValueError: a table for a 2-D window is not that of a square window.
    """
    own = model.state_dict()
    state, inflated = inflate(model, {key: value for key, value in state.items() if key in own})
    fitting = Fitting(inflated=inflated)
    for key, value in state.items():
        if value.shape == own[key].shape:
            fitted = value
        elif more_rows and re.search(more_rows, key):
            fitted = _with_more_rows(value, own[key])
        else:
            fitted = _fit(model, key, value, own[key])
        if fitted is None:
            fitting.unfit.append(key)
            continue
        fitting.tensors[key] = fitted
        if fitted is not value:
            fitting.resized[key] = f'{tuple(value.shape)} to {tuple(fitted.shape)}'
    return fitting


def fit_on_load(model: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    """Drop computed buffers and fit tensors before loading: a hook for ``register_load_state_dict_pre_hook``."""
    for key in [k for k in state_dict if k.startswith(prefix) and k.endswith(COMPUTED)]:
        del state_dict[key]
    theirs = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    fitting = fit_state_dict(model, theirs)
    state_dict.update({prefix + key: fitting.tensors[key] for key in (*fitting.inflated, *fitting.resized)})
    if fitting.inflated:
        print_log(f'inflated {len(fitting.inflated)} of {len(theirs)} tensors of an image model', 'current')


def _with_more_rows(value: Tensor, own: Tensor) -> Tensor | None:
    """Put the model's own rows behind those of a file; None if it has fewer, or other columns."""
    if value.shape[1:] != own.shape[1:] or len(value) > len(own):
        return None
    return torch.cat([value.to(own), own[len(value) :]])


def _fit(model: nn.Module, key: str, value: Tensor, own: Tensor) -> Tensor | None:
    path, _, name = key.rpartition('.')
    # the last axis is channels or heads in all three, and no rule changes it
    if name not in _RULES or value.ndim != own.ndim or value.shape[-1] != own.shape[-1]:
        return None
    rule, size = _RULES[name]
    owner = model.get_submodule(path)
    # another package's module of the same name may keep its size elsewhere
    return rule(owner, value, own) if size is None or hasattr(owner, size) else None


def _fit_table(owner: nn.Module, table: Tensor, own: Tensor) -> Tensor | None:
    """Resize a bias table ``(rows, heads)`` to the owner's window; None if the file's 3-D window is ambiguous."""
    return fit_relative_position_table(table, owner.window_size)


def _fit_positions(owner: nn.Module, embed: Tensor, own: Tensor) -> Tensor | None:
    """Resize ``(1 + H * W, C)`` of an image tower; cut ``(T, C)`` of a text tower to the first positions.

    None if the file's map is not square, or the model has more text positions.
    """
    if hasattr(owner, 'patches_resolution'):
        side = math.isqrt(max(len(embed) - 1, 0))
        if side**2 + 1 != len(embed) or not side:
            return None
        return resize_token_positions(embed, owner.patches_resolution, (side, side), owner.antialias)
    return embed[: len(own)] if len(own) < len(embed) else None


def _fit_image_positions(owner: nn.Module, embed: Tensor, own: Tensor) -> Tensor | None:
    """Resize ``(1, H * W, C)`` to the owner's resolution; None if the file's is not square."""
    side = round(embed.shape[1] ** 0.5)
    if side**2 != embed.shape[1]:
        return None
    return resize_position_embedding(embed, owner.patches_resolution, (side, side))


#: Name of a tensor -> its rule, and the attribute of its owner that the rule reads.
_RULES: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], Tensor | None], str | None]] = {
    'relative_position_bias_table': (_fit_table, 'window_size'),
    'positional_embedding': (_fit_positions, None),
    'absolute_pos_embed': (_fit_image_positions, 'patches_resolution'),
}
