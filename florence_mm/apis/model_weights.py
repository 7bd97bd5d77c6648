"""All weights of a model, or a sentence that says what is missing."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from florence_mm.models.checkpoints.loading import load_checkpoint
from florence_mm.models.checkpoints.reading import read_checkpoint
from florence_mm.ops.position import table_window


def load_whole_model(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint that must hold every tensor of a model, in the model's own names or a known public layout.

    Args:
        model: where the weights go.
        path: a file or a URL.

    Returns:
        the checkpoint's metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: tensors are missing or have other shapes.
    """
    state, meta = read_checkpoint(path)
    own = model.state_dict()
    if own.keys() <= state.keys():
        for key, value in own.items():
            if state[key].shape != value.shape and not _can_be_resized(model, key, state[key]):
                raise ValueError(
                    f'{path} has {key} of shape {tuple(state[key].shape)}, the model {tuple(value.shape)}; use the '
                    'config that the checkpoint was trained with'
                )
        model.load_state_dict({key: state[key] for key in own})
        return meta
    missing = load_checkpoint(model, path).missing
    if missing:
        raise ValueError(
            f'{path} lacks {len(missing)} of the {len(own)} tensors of {type(model).__name__}, among them {missing[0]}'
            '; use the config that the checkpoint was trained with'
        )
    return meta


def _can_be_resized(model: nn.Module, key: str, value: Tensor) -> bool:
    """Whether it is a relative position table of a window that its rows tell."""
    if not key.endswith('relative_position_bias_table'):
        return False
    owner = model.get_submodule(key.rpartition('.')[0])
    return len(owner.window_size) == 2 or table_window(len(value), owner.window_size) is not None
