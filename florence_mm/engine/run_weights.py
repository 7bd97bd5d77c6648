"""Fitting the weights of a checkpoint to a run's model: all of them for a test, most of them for a new run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.contents import check_types, check_values
from florence_mm.models.checkpoints.coverage import check_coverage, missing_sentence
from florence_mm.models.checkpoints.fitting import fit_state_dict
from florence_mm.models.checkpoints.loading import check_origin
from florence_mm.models.checkpoints.renaming import Source
from florence_mm.models.checkpoints.text_modes import fit_text_modes

from .parallelize import is_sharded, unsharded_layout


def fit_run_weights(
    model: nn.Module,
    state: Mapping[str, Any],
    path: str | Path,
    whole: bool,
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit a state dict to a model, and log in one sentence what is missing.

    Args:
        model: the run's model, sharded or not.
        state: values by key, in the unsharded layout; ``module.`` before keys is removed.
        path: the file, for messages.
        whole: all weights must be there, as for a test; otherwise as many as
            :func:`~florence_mm.models.checkpoints.coverage.check_coverage` says.
        meta: the file's metadata: what a converter wrote keeps the settings of the format it came from.

    Returns:
        the tensors in the shapes of the model, and the model's other values.

    Raises:
        UsageError: no or too few weights are the model's, they are not finite floating-point numbers, or a setting of
            the model is not that of their format.
    """
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    layout = unsharded_layout(model)
    theirs = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not whole:
        theirs, _ = fit_text_modes(theirs, layout)
    if layout.keys().isdisjoint(theirs):
        raise UsageError(
            f'no weight in {path} belongs to this model (it starts with {next(iter(theirs), None)!r}, the model with '
            f'{next(iter(layout), None)!r}); load another layout with init_cfg=dict(type="florence_mm.Pretrained", '
            'checkpoint=..., prefix=...)'
        )
    if is_sharded(model):
        tensors = {key: value for key, value in theirs.items() if layout.get(key) == value.shape}
    else:
        tensors = fit_state_dict(model, theirs).tensors
    name = type(model).__name__
    try:
        check_types(model, tensors, path)
        check_values(tensors, path)
        check_coverage(layout, tensors, name, path, whole=whole)
        notes = check_origin(model, tensors, Source(path, set(theirs), meta if isinstance(meta, Mapping) else {}))
    except ValueError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print_log(f'{path}: {note}', 'current', logging.WARNING)
    others = [key for key in theirs if key not in layout]
    level = logging.INFO if tensors.keys() >= layout.keys() and not others else logging.WARNING
    print_log(missing_sentence(layout, tensors, name, path, others), 'current', level)
    return {**tensors, **{key: value for key, value in state.items() if key in layout and key not in theirs}}
