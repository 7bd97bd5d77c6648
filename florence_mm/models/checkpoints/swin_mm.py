"""Swin of mmdet and mmpretrain, whose patch merging has another order of channels.

Source of the layout: mmdet ``models/backbones/swin.py`` and ``models/layers/transformer/utils.py``.
"""

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .classifiers import convert_with_head, pop_head
from .exporting import Exported, register_export
from .renaming import (
    Names,
    Skipped,
    Source,
    StateDict,
    add_prefix,
    any_key,
    keep_matching,
    register_format,
    rename,
)
from .settings import Setting
from .swin import (
    NOT_BACKBONE,
    OPTIONAL_PARTS,
    is_swin,
    name_last_norm,
    number_last_norm,
    position_indices,
    require_patch_norm,
    small_maps,
    take_swin,
)

_NAME = 'mmdet or mmpretrain Swin'
_MERGING = r'\.downsample\.(reduction\.weight|norm\.)'
_NAMES = Names(
    ('^stages.', '^layers.'),
    ('^patch_embed.projection.', '^patch_embed.proj.'),
    ('.attn.w_msa.', '.attn.'),
    ('.ffn.layers.0.0.', '.mlp.fc1.'),
    ('.ffn.layers.1.', '.mlp.fc2.'),
)


def _settings(source: Source) -> Iterable[Setting]:
    """Padding as in mmdet for the weights of a detector, else open."""
    if any_key(source.keys, r'^(neck|rpn_head|bbox_head|roi_head|encoder|decoder)\.'):
        return (small_maps(True),)
    return (small_maps(False, True, advice='True in mmdet, in mmpretrain False unless its config sets it'),)


@register_format(
    _NAME,
    lambda k: any_key(k, r'^(backbone\.)?stages\.\d+\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table$'),
    priority=-1,
    settings=_settings,
    optional_parts=OPTIONAL_PARTS,
)
def convert_mm_classifier(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout of mmdet and mmpretrain, with the head of a classifier."""
    return convert_with_head(state, convert_mm_swin, 'head.fc.')


def convert_mm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a backbone of mmdet and mmpretrain without its head."""
    state, skipped = keep_matching(
        state, r'^(backbone\.)?(patch_embed|stages|norm\d?|absolute_pos_embed)(\.|$)', NOT_BACKBONE
    )
    state = name_last_norm(_NAMES.to_ours(rename(state, [(r'^backbone\.', '')])))
    require_patch_norm(state)
    for key in state:
        if re.search(_MERGING, key):
            state[key] = _from_unfold_order(state[key])
    embed = state.get('absolute_pos_embed')
    if embed is not None and embed.ndim == 4:  # older mmdet stores a map (1, C, H, W)
        state['absolute_pos_embed'] = embed.flatten(2).transpose(1, 2)
    return state, skipped


@register_export(
    _NAME,
    is_swin,
    wrapper='state_dict',
    settings=[small_maps(False, True, advice='mmdet always pads, mmpretrain with pad_small_map=True')],
)
def export_mm_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of a backbone of mmdet and mmpretrain with its buffers, or of a classifier if it has a head."""
    head = add_prefix(pop_head(state), 'head.fc.')
    state, left_out = take_swin(state, 'mmdet', positions=True, stage_norms=True)
    for key in state:
        if re.search(_MERGING, key):
            state[key] = _to_unfold_order(state[key])
    state = _NAMES.to_theirs(number_last_norm({**state, **position_indices(state)}))
    return Exported({**add_prefix(state, 'backbone.'), **head} if head else state, left_out)


def _from_unfold_order(value: Tensor) -> Tensor:
    """Reorder patch merging from ``nn.Unfold`` (channel-major, row-major) to Swin (patch-major, column-major)."""
    lead, channels = value.shape[:-1], value.shape[-1] // 4
    value = value.reshape(*lead, channels, 2, 2)  # (..., C, row, column)
    return value.movedim(-3, -1).transpose(-3, -2).reshape(*lead, -1)  # (..., column, row, C) as one axis


def _to_unfold_order(value: Tensor) -> Tensor:
    """The inverse of :func:`_from_unfold_order`."""
    lead, channels = value.shape[:-1], value.shape[-1] // 4
    value = value.reshape(*lead, 2, 2, channels)  # (..., column, row, C)
    return value.transpose(-3, -2).movedim(-1, -3).reshape(*lead, -1)  # (..., C, row, column) as one axis
