"""Public checkpoint formats and the conversion of their keys to our names.

A format is detected by its keys. Our names are, for a backbone, ``patch_embed.*``, ``layers.*`` and ``norm.*``; for two
towers ``image_encoder.*``, ``text_encoder.*``, ``image_projection``, ``text_projection`` and ``logit_scale``, as in
UniCL's releases.

A format is registered by :func:`~florence_mm.models.checkpoints.renaming.register_format`, in a module of this folder
or of a family. A file whose keys no format detects is in an unknown one: its keys are never guessed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .contents import some
from .renaming import COMPUTED, FORMATS, Format, Skipped, StateDict, any_key, register_format

OURS = 'florence_mm'
#: A run of any OpenMMLab package, whose names stay as they are; known by its metadata alone.
RUN = 'mmengine run'
_OWN_PARTS = (
    r'^((detector\.)?backbone|(classifier\.|retriever\.|reranker\.)?image_encoder)\.'
    r'layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$',
    r'^((detector\.)?backbone\.|(classifier\.|retriever\.|reranker\.)?image_encoder\.)?'
    r'layers\.\d+\.blocks\.\d+\.channel_block\.attn\.qkv\.weight$',
    r'^((retriever\.|classifier\.)?text_encoder\.)?(tower\.)?resblocks\.\d+\.attn\.in_proj_weight$',
    r'^text_encoder\.model\.encoder\.layer\.\d+\.attention\.self\.query\.',
    r'^(detector\.)?(bbox_head\.)?blocks\.\d+\.offset_conv\.',
    r'^(reranker\.)?cross_modal\.(text|image)_transform\.',
    r'^(text_stack|qformer\.stack)\.layers\.\d+\.attention\.qkv\.weight$',
)


@register_format('florence_mm METER', lambda k: any_key(k, r'^cross_modal\.(text|image)_transform\.'))
@register_format('UniCL', lambda k: any_key(k, r'^image_encoder\.') and any_key(k, r'^text_encoder\.'), priority=-1)
@register_format(OURS, lambda k: any(any_key(k, part) for part in _OWN_PARTS), priority=-10)
@register_format(RUN, lambda k: False)
def keep(state: StateDict) -> tuple[StateDict, Skipped]:
    """Keep all keys, which are ours, or those of a run."""
    return dict(state), {}


def find_format(keys: Iterable[str], meta: Mapping[str, Any] | None = None) -> Format | None:
    """Find the format of a checkpoint.

    Args:
        keys: its keys.
        meta: its metadata; a file that this toolbox published or a run of mmengine wrote keeps its names, whatever the
            model is.

    Returns:
        the format; None if it is unknown.
    """
    keys = set(keys)
    by_priority = sorted(FORMATS.values(), key=lambda fmt: -fmt.priority)
    found = next((fmt for fmt in by_priority if fmt.detect(keys)), None)
    for written_by, name in (('florence_mm_version', OURS), ('mmengine_version', RUN)):
        if found is None and meta and written_by in meta:
            return FORMATS[name]
    return found


def convert_state_dict(
    state: StateDict, path: str | Path = 'the checkpoint', meta: Mapping[str, Any] | None = None
) -> tuple[str, StateDict, Skipped]:
    """Detect the format of a state dict and convert its keys to our names.

    Args:
        state: tensors by key, as :func:`~florence_mm.models.checkpoints.reading.read_checkpoint` returns them.
        path: the file, for messages.
        meta: its metadata.

    Returns:
        the name of the format, the tensors under our names, and the skipped keys with the reason.

    Raises:
        ValueError: the format is unknown, or the file lacks a part of it.
    """
    state, skipped = without_computed(state)
    found = find_format(state, meta)
    if found is None:
        raise ValueError(
            f'{path} is in a format that florence_mm does not know: its keys begin with '
            f'{some(first_parts(state, 2), 3)}; the known ones are {", ".join(sorted(FORMATS))}'
        )
    return found.name, *converted(found, state, skipped, path)


def converted(found: Format, state: StateDict, skipped: Skipped, path: str | Path) -> tuple[StateDict, Skipped]:
    """Convert tensors of a format; returns them, and ``skipped`` with the keys that the conversion leaves out.

    Raises:
        ValueError: the file lacks a part of the format, or is another model's.
    """
    try:
        state, left_out = found.convert(state)
    except ValueError as error:
        raise ValueError(f'{path} ({found.name}): {error}') from None
    return state, {**skipped, **left_out}


def without_computed(state: StateDict) -> tuple[StateDict, Skipped]:
    """Remove what models compute themselves, and ``module.`` or ``_orig_mod.`` before all keys.

    Args:
        state: tensors by key.

    Returns:
        the rest, and what was removed.
    """
    skipped = {key: 'computed by the model' for key in state if key.endswith(COMPUTED)}
    state = {key: value for key, value in state.items() if key not in skipped}
    # of data parallel, of compiled modules, and of one inside the other
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, skipped


def first_parts(keys: Iterable[str], depth: int = 1) -> list[str]:
    """The different first ``depth`` parts of dotted keys, in order."""
    return list(dict.fromkeys('.'.join(key.split('.')[:depth]) for key in keys))
