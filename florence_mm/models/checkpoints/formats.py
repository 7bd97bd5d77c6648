"""Public checkpoint formats and the conversion of their keys to our names.

A format is detected by its keys. Our names are, for a backbone, ``patch_embed.*``, ``layers.*`` and ``norm.*``; for two
towers ``image_encoder.*``, ``text_encoder.*``, ``image_projection``, ``text_projection`` and ``logit_scale``, as in
UniCL's releases.

A format is registered by :func:`~florence_mm.models.checkpoints.renaming.register_format`, in a module of this folder
or of a family.
"""

from .renaming import COMPUTED, FORMATS, Skipped, StateDict, any_key, register_format

_UNKNOWN = -10  # below every other priority


@register_format('florence_mm METER', lambda k: any_key(k, r'^cross_modal\.(text|image)_transform\.'))
@register_format('UniCL', lambda k: any_key(k, r'^image_encoder\.') and any_key(k, r'^text_encoder\.'), priority=-1)
@register_format('florence_mm', lambda k: True, priority=_UNKNOWN)
def keep(state: StateDict) -> tuple[StateDict, Skipped]:
    """Keep all keys, which are ours."""
    return dict(state), {}


def convert_state_dict(state: StateDict) -> tuple[str, StateDict, Skipped]:
    """Detect the format of a state dict and convert its keys to our names.

    Args:
        state: tensors by key, as :func:`~florence_mm.models.checkpoints.reading.read_checkpoint` returns them.

    Returns:
        the name of the format, the tensors under our names, and the skipped keys with the reason.
    """
    skipped = {key: 'computed by the model' for key in state if key.endswith(COMPUTED)}
    state = {key: value for key, value in state.items() if key not in skipped}
    if state and all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    keys, formats = set(state), sorted(FORMATS.values(), key=lambda fmt: -fmt.priority)
    found = next(fmt for fmt in formats if fmt.detect(keys))
    state, left_out = found.convert(state)
    return found.name, state, {**skipped, **left_out}
