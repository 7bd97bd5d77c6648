"""Swin's official layout, which is ours and that of CoSwin's public code, and what all layouts of Swin share."""

import math
import re
from collections.abc import Collection
from typing import Any

from torch import Tensor

from florence_mm.ops.windows import relative_position_index

from .classifiers import NOT_BACKBONE, convert_with_head, is_backbone, pop_head
from .exporting import Exported, hold, register_export
from .renaming import Skipped, StateDict, add_prefix, any_key, keep_matching, register_format, rename
from .settings import Setting

#: Parts that give other features if the model lacks them -> the argument of our backbones that makes them.
OPTIONAL_PARTS = {
    r'(^|\.)absolute_pos_embed$': 'use_abs_pos_embed=True',
    r'\.blocks\.\d+\.gamma$': 'layer_scale_init_value=1.0',
}
_BACKBONE = r'^(patch_embed|layers|norm\d?|absolute_pos_embed)(\.|$)'
_CONV_MERGE = r'^layers\.\d+\.downsample\.proj\.'
_CONV_STEM = 7  # side of the kernel of CoSwin's stem; Swin's is its stride


@register_format('Swin or CoSwin', is_backbone, priority=-1, optional_parts=OPTIONAL_PARTS)
def convert_official_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the official layout, which CoSwin's public code has too, with the head of a classifier."""
    return convert_with_head(state, convert_swin, 'head.')


def convert_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a backbone in the official layout without its head."""
    state = name_last_norm(rename(state, [(r'^backbone\.', '')]))
    require_patch_norm(state)
    return keep_matching(state, _BACKBONE, NOT_BACKBONE)


def small_maps(*accepted: bool, advice: str = '') -> Setting:
    """The setting whether maps not larger than the window are padded and shifted; features of others are the same."""
    return Setting(
        'pad_small_map', r'(^|\.)blocks\.\d+$', lambda m: getattr(m, 'pad_small_map', None), accepted, advice
    )


def is_swin(keys: Collection[str]) -> bool:
    """Whether our keys are those of a backbone with Swin's patch merging, without a prefix."""
    return is_backbone(keys) and not any_key(keys, _CONV_MERGE)


@register_export('Swin or CoSwin', is_backbone, wrapper='model', settings=[small_maps(False)])
def export_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the official layout; with norms of several stages that of its detectors, whose last is numbered too."""
    head = add_prefix(pop_head(state), 'head.')
    state, left_out = hold(state, _BACKBONE, 'Swin')
    if any_key(state, r'^norm\d\.'):
        state = number_last_norm(state)
    absent = {'attn_mask': 'computed by the package, from the size of its pictures'}
    absent |= {} if head else {'head': 'made by the package'}
    return Exported({**state, **head, **position_indices(state)}, left_out, absent)


def require_patch_norm(state: StateDict) -> None:
    """Check that there is a norm after the patch embedding, as in all released models; ours always has one.

    Raises:
        ValueError: there is none.
    """
    if 'patch_embed.proj.weight' in state and 'patch_embed.norm.weight' not in state:
        raise ValueError('it has no norm after the patch embedding (patch_norm=False), which our backbones always have')


def last_stage(state: Collection[str]) -> int:
    """The number of the last stage of a backbone, under any prefix."""
    return max((int(m[1]) for key in state if (m := re.match(r'(?:.*\.)?layers\.(\d+)\.', key))), default=0)


def name_last_norm(state: StateDict) -> StateDict:
    """Rename the norm of the last stage, ``norm3`` in the OpenMMLab packages, to ``norm``."""
    return rename(state, [(rf'^(backbone\.)?norm{last_stage(state)}\.', r'\1norm.')])


def number_last_norm(state: StateDict) -> StateDict:
    """Rename the norm of the last stage, ``norm``, to ``norm3`` as the OpenMMLab packages and detectors name it."""
    return rename(state, [(r'^(backbone\.)?norm\.', rf'\1norm{last_stage(state)}.')])


def take_swin(
    state: StateDict, layout: str, positions: bool = False, stage_norms: bool = False
) -> tuple[StateDict, Skipped]:
    """Take the tensors of a backbone for a layout that holds Swin and nothing more.

    Args:
        state: tensors under our names.
        layout: name of the package, for messages.
        positions: the layout has absolute position embeddings.
        stage_norms: the layout has norms of several stages.

    Returns:
        the tensors, and the other keys with the reason.

    Raises:
        ValueError: the backbone has a part without which its features would be others.
    """
    stem = state.get('patch_embed.proj.weight')
    if any_key(state, _CONV_MERGE) or (stem is not None and stem.shape[-1] == _CONV_STEM):
        raise ValueError(
            f"its patch embedding and patch merging are CoSwin's convolutions, which {layout} lacks; only a backbone "
            'with conv_embed=False can be written so'
        )
    if stem is not None and stem.ndim != 4:
        raise ValueError(f'its patch embedding has {stem.ndim} axes, that of a model of clips; {layout} is of pictures')
    for key in state:
        if key.endswith('.gamma') or (key == 'absolute_pos_embed' and not positions):
            what = 'absolute position embeddings' if key == 'absolute_pos_embed' else 'a layer scale'
            raise ValueError(f'it has {key}, {what}, which {layout} lacks, and would give other features without it')
    kept = _BACKBONE if stage_norms else _BACKBONE.replace(r'\d?', '')
    return hold(state, kept, layout)


def window_of(state: StateDict) -> int:
    """The side of the window of all stages of a backbone for pictures.

    Raises:
        ValueError: stages have different windows, or one that is not square.
    """
    rows = {len(value) for key, value in state.items() if key.endswith('relative_position_bias_table')}
    sides = {(math.isqrt(count) + 1) // 2 for count in rows}
    if len(sides) != 1 or {(2 * side - 1) ** 2 for side in sides} != rows:
        raise ValueError(f'its bias tables have {sorted(rows)} rows, and the layout has one square window for all')
    return sides.pop()


def position_indices(state: StateDict) -> StateDict:
    """Buffers ``relative_position_index`` for the bias tables of square windows, which public code stores."""
    found = {}
    for key, value in state.items():
        if key.endswith('relative_position_bias_table'):
            side = (math.isqrt(len(value)) + 1) // 2
            if (2 * side - 1) ** 2 == len(value):
                found[key.replace('bias_table', 'index')] = relative_position_index((side, side))
    return found


def split_rows(value: Tensor) -> list[Tensor]:
    """Split a joint projection of query, key and value ``(3 C, ...)`` in three views."""
    return list(value.chunk(3))
