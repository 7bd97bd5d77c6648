"""Conversion of Swin backbones of public packages to the official Swin names, which are ours."""

import re
from collections.abc import Iterable

from torch import Tensor

from .renaming import Skipped, Source, StateDict, any_key, keep_matching, register_format, rename
from .settings import Setting

#: Parts that give other features if the model lacks them -> the argument of our backbones that makes them.
OPTIONAL_PARTS = {
    r'(^|\.)absolute_pos_embed$': 'use_abs_pos_embed=True',
    r'\.blocks\.\d+\.gamma$': 'layer_scale_init_value=1.0',
}
_TABLE = r'layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$'
_BACKBONE = r'^(patch_embed|layers|norm\d?|absolute_pos_embed)(\.|$)'


@register_format(
    'Swin or CoSwin',
    lambda k: any_key(k, rf'^{_TABLE}'),
    priority=-1,
    optional_parts=OPTIONAL_PARTS,
)
def convert_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the official layout, which CoSwin's public code has too."""
    state = _one_last_norm(rename(state, [(r'^backbone\.', '')]))
    require_patch_norm(state)
    return keep_matching(state, _BACKBONE, 'not part of the backbone')


def require_patch_norm(state: StateDict) -> None:
    """Check that there is a norm after the patch embedding, as in all released models; ours always has one.

    Raises:
        ValueError: there is none.
    """
    if 'patch_embed.proj.weight' in state and 'patch_embed.norm.weight' not in state:
        raise ValueError('it has no norm after the patch embedding (patch_norm=False), which our backbones always have')


def _one_last_norm(state: StateDict) -> StateDict:
    """Rename the norm of the last stage, ``norm3`` in the OpenMMLab packages, to ``norm``."""
    last = max((int(m[1]) for key in state if (m := re.match(r'(?:backbone\.)?layers\.(\d+)\.', key))), default=0)
    return rename(state, [(rf'^(backbone\.)?norm{last}\.', r'\1norm.')])


@register_format(
    'Video Swin or VideoCoSwin',
    lambda k: any_key(k, rf'^backbone\.{_TABLE}') and any_key(k, r'^cls_head\.'),
    optional_parts=OPTIONAL_PARTS,
)
def convert_video_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a recognizer of Video Swin's public code or mmaction2; backbone and head keep their prefixes."""
    return _one_last_norm(state), {}


@register_format(
    'timm Swin',
    lambda k: (
        any_key(k, rf'^{_TABLE}')
        and any_key(k, r'^layers\.1\.downsample\.')
        and not any_key(k, r'^layers\.0\.downsample\.')
    ),
    optional_parts=OPTIONAL_PARTS,
)
def convert_timm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert timm's layout."""
    # in timm a patch merging belongs to the stage after it
    state = {
        re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key): value
        for key, value in state.items()
    }
    return convert_swin(state)


def _from_unfold_order(value: Tensor) -> Tensor:
    """Reorder patch merging from ``nn.Unfold`` (channel-major, row-major) to Swin (patch-major, column-major)."""
    lead, channels = value.shape[:-1], value.shape[-1] // 4
    value = value.reshape(*lead, channels, 2, 2)  # (..., C, row, column)
    return value.movedim(-3, -1).transpose(-3, -2).reshape(*lead, -1)  # (..., column, row, C) as one axis


def small_maps(*accepted: bool, advice: str = '') -> Setting:
    """The setting whether maps not larger than the window are padded and shifted; features of others are the same."""
    return Setting(
        'pad_small_map', r'(^|\.)blocks\.\d+$', lambda m: getattr(m, 'pad_small_map', None), accepted, advice
    )


def _mm_settings(source: Source) -> Iterable[Setting]:
    """Padding as in mmdet for the weights of a detector, else open."""
    if any_key(source.keys, r'^(neck|rpn_head|bbox_head|roi_head|encoder|decoder)\.'):
        return (small_maps(True),)
    return (small_maps(False, True, advice='True in mmdet, in mmpretrain False unless its config sets it'),)


@register_format(
    'mmdet or mmpretrain Swin',
    lambda k: any_key(k, r'^(backbone\.)?stages\.\d+\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table$'),
    priority=-1,
    settings=_mm_settings,
    optional_parts=OPTIONAL_PARTS,
)
def convert_mm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout of mmdet and mmpretrain, whose patch merging has another order of channels."""
    state, skipped = keep_matching(
        state, r'^(backbone\.)?(patch_embed|stages|norm\d?|absolute_pos_embed)(\.|$)', 'not part of the backbone'
    )
    state = rename(
        state,
        [
            (r'^backbone\.', ''),
            (r'^stages\.', 'layers.'),
            (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
            (r'\.attn\.w_msa\.', '.attn.'),
            (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
            (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        ],
    )
    state = _one_last_norm(state)
    require_patch_norm(state)
    for key in state:
        if re.search(r'\.downsample\.(reduction\.weight|norm\.)', key):
            state[key] = _from_unfold_order(state[key])
    embed = state.get('absolute_pos_embed')
    if embed is not None and embed.ndim == 4:  # mmdet stores a map (1, C, H, W)
        state['absolute_pos_embed'] = embed.flatten(2).transpose(1, 2)
    return state, skipped
