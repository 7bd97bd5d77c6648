"""Loading of complete checkpoints for inference."""

from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import nn

from florence_mm.models.checkpoints.fitting import fit_state_dict
from florence_mm.models.checkpoints.loading import load_tensors
from florence_mm.models.checkpoints.reading import read_checkpoint


def load_whole_model(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint with all tensors of a model, under the model's names or in a known public format.

    Args:
        model: the model.
        path: a file or a URL.

    Returns:
        the metadata of the checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or tensors are missing or have other shapes.
    """
    state, meta = read_checkpoint(path)
    own = model.state_dict()
    if own.keys() <= state.keys():
        _load_own_layout(model, {key: state[key] for key in own}, path)
        return meta
    missing = load_tensors(model, state, path).missing
    if missing:
        raise ValueError(
            f'{path} lacks {len(missing)} of the {len(own)} tensors of {type(model).__name__}, among them {missing[0]}'
            '; use the config that the checkpoint was trained with'
        )
    return meta


def _load_own_layout(model: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Load tensors without detecting the format, as names of a user's model may resemble a public one."""
    fitting = fit_state_dict(model, state)
    if fitting.unfit:
        key = fitting.unfit[0]
        raise ValueError(
            f'{path} has {key} of shape {tuple(state[key].shape)}, the model {tuple(model.state_dict()[key].shape)}; '
            'use the config that the checkpoint was trained with'
        )
    if changed := {**fitting.resized, **fitting.inflated}:
        key, shapes = next(iter(changed.items()))
        print_log(f'{path}: {len(changed)} tensors were fitted to the model, as {key} from {shapes}', 'current')
    model.load_state_dict(fitting.tensors)
