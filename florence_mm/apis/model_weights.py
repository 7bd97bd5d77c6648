"""Loading of complete checkpoints for inference."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import nn
from torch.overrides import TorchFunctionMode

from florence_mm.models.checkpoints.contents import check_types, check_values
from florence_mm.models.checkpoints.coverage import check_coverage, needed_keys
from florence_mm.models.checkpoints.fitting import fit_state_dict
from florence_mm.models.checkpoints.frozen import is_main_part, with_frozen, without_frozen
from florence_mm.models.checkpoints.loading import check_origin, load_tensors
from florence_mm.models.checkpoints.reading import read_checkpoint
from florence_mm.models.checkpoints.renaming import Source

#: Functions of ``torch.nn.init`` and methods of tensors that draw random numbers in place.
_RANDOM = (
    *('kaiming_normal_', 'kaiming_uniform_', 'xavier_normal_', 'xavier_uniform_'),
    *('normal_', 'trunc_normal_', 'uniform_'),
)


def load_whole_model(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint with all tensors of a model, under the model's names or in a known public format.

    Args:
        model: the model.
        path: a file or a URL.

    Returns:
        the metadata of the checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, tensors are missing, have other shapes or types, or are not finite.
    """
    state, meta = read_checkpoint(path)
    load_whole_state(model, state, path, meta)
    return meta


def load_whole_state(model: nn.Module, state: dict[str, Any], path: str | Path, meta: dict[str, Any]) -> None:
    """Load all tensors of a model from a checkpoint that was read.

    Args:
        model: the model.
        state: its tensors, under the model's names or in a known public format.
        path: the file, for messages.
        meta: its metadata.

    Raises:
        ValueError: tensors are missing, have other shapes or types, or are not finite.
    """
    own = model.state_dict().keys()
    named_ours = set(needed_keys(without_frozen(model, dict.fromkeys(own)))) <= state.keys()
    if named_ours or is_main_part(model, state):
        state = with_frozen(model, state, path, meta)
    if set(needed_keys(own)) <= state.keys():
        _load_own_layout(model, state, Source(path, set(state), meta))
    else:
        report = load_tensors(model, state, path, allow_missing=True, meta=meta)
        check_coverage(own, own - set(report.missing), type(model).__name__, path, whole=True)


class zeros_for_random(TorchFunctionMode):
    """Context manager in which parameters are made as zeros instead of random numbers, as a checkpoint replaces them.

    Random numbers take a second for a hundred million parameters.
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Fill a parameter with zeros, or call what is no random initialisation."""
        if getattr(func, '__name__', '') in _RANDOM:
            # torch.nn.init passes the tensor by its name
            tensor = args[0] if args else (kwargs or {}).get('tensor')
            if isinstance(tensor, nn.Parameter):
                tensor.data.zero_()
                return tensor
        return func(*args, **(kwargs or {}))


def _load_own_layout(model: nn.Module, state: dict[str, Any], source: Source) -> None:
    """Load tensors without detecting the format, as names of a user's model may resemble a public one."""
    own, path = model.state_dict(), source.path
    state = {key: value for key, value in state.items() if key in own}
    fitting = fit_state_dict(model, state)
    if fitting.unfit:
        key = fitting.unfit[0]
        raise ValueError(
            f'{path} has {key} of shape {tuple(state[key].shape)}, the model {tuple(own[key].shape)}; '
            'use the config that the checkpoint was trained with'
        )
    if changed := {**fitting.resized, **fitting.inflated}:
        key, shapes = next(iter(changed.items()))
        print_log(f'{path}: {len(changed)} tensors were fitted to the model, as {key} from {shapes}', 'current')
    check_types(model, fitting.tensors, path)
    check_values(fitting.tensors, path)
    for note in check_origin(model, fitting.tensors, source):
        print_log(f'{path}: {note}', 'current', logging.WARNING)
    model.load_state_dict(fitting.tensors, strict=False)
