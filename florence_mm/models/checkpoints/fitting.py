"""Fitting tensors of a checkpoint to a model of another window, resolution, context or number of axes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from florence_mm.ops.position import fit_relative_position_table, resize_position_embedding

from .inflation import inflate
from .renaming import StateDict


@dataclass
class Fitting:
    """What :func:`fit_state_dict` made of a state dict.

    Attributes:
        tensors: those of the shape that the model has under their key.
        resized: keys of tensors that were resized or cut for it, with both shapes.
        inflated: keys of an image model's tensors that got an axis of time, with both shapes.
        unfit: keys of tensors that the model has in another shape and that cannot be fitted.
    """

    tensors: StateDict = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    unfit: list[str] = field(default_factory=list)


def fit_state_dict(model: nn.Module, state: StateDict) -> Fitting:
    """Give tensors the shapes that a model has under their keys, where a rule of public code says how.

    - Image weights for a video model are inflated (:mod:`~florence_mm.models.checkpoints.inflation`).
    - Relative position tables of another window and absolute position embeddings of another resolution are resized:
      bicubic, along time linear (:mod:`florence_mm.ops.position`).
    - Position embeddings of a text encoder with a shorter context are cut to the first positions.

    Args:
        model: where the tensors shall go; it is not changed.
        state: tensors under the model's names; keys that it lacks are left out.

    Raises:
        ValueError: a table for a 2-D window that is of no square window.
    """
    own = model.state_dict()
    state, inflated = inflate(model, {key: value for key, value in state.items() if key in own})
    fitting = Fitting(inflated=inflated)
    for key, value in state.items():
        fitted = value if value.shape == own[key].shape else _fit(model, key, value, own[key])
        if fitted is None:
            fitting.unfit.append(key)
            continue
        fitting.tensors[key] = fitted
        if fitted is not value:
            fitting.resized[key] = f'{tuple(value.shape)} to {tuple(fitted.shape)}'
    return fitting


def _fit(model: nn.Module, key: str, value: Tensor, own: Tensor) -> Tensor | None:
    path, _, name = key.rpartition('.')
    # all three have channels or heads last, which no rule changes
    if name not in _RULES or value.ndim != own.ndim or value.shape[-1] != own.shape[-1]:
        return None
    return _RULES[name](model.get_submodule(path), value, own)


def _fit_table(owner: nn.Module, table: Tensor, own: Tensor) -> Tensor | None:
    """``(rows, heads)`` for the owner's window; None where the file's window in 3-D cannot be told."""
    return fit_relative_position_table(table, owner.window_size)


def _fit_text_positions(owner: nn.Module, embed: Tensor, own: Tensor) -> Tensor | None:
    """The first of the positions ``(T, C)``; None where the model has more."""
    return embed[: len(own)] if len(own) < len(embed) else None


def _fit_image_positions(owner: nn.Module, embed: Tensor, own: Tensor) -> Tensor | None:
    """``(1, H * W, C)`` for the owner's resolution; None where the file's is no square."""
    side = round(embed.shape[1] ** 0.5)
    if side**2 != embed.shape[1]:
        return None
    return resize_position_embedding(embed, owner.patches_resolution, (side, side))


_RULES: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor | None]] = {
    'relative_position_bias_table': _fit_table,
    'positional_embedding': _fit_text_positions,
    'absolute_pos_embed': _fit_image_positions,
}
