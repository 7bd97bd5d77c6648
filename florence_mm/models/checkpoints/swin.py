"""Swin backbones of the public packages under the official Swin names, which are ours."""

import re

from torch import Tensor

from .renaming import Skipped, StateDict, rename, split

_BACKBONE = r'^(patch_embed|layers|norm\d?|absolute_pos_embed)(\.|$)'


def convert_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """The official layout, also CoSwin's."""
    return split(_one_last_norm(rename(state, [(r'^backbone\.', '')])), _BACKBONE, 'not part of the backbone')


def _one_last_norm(state: StateDict) -> StateDict:
    """Number the norms as we do: the last stage's, which the mm packages call ``norm3``, has no number."""
    last = max((int(m[1]) for key in state if (m := re.match(r'(?:backbone\.)?layers\.(\d+)\.', key))), default=0)
    return rename(state, [(rf'^(backbone\.)?norm{last}\.', r'\1norm.')])


def convert_video_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """A recognizer of Video Swin's public code or of mmaction2; backbone and head keep their prefixes."""
    return _one_last_norm(state), {}


def convert_timm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """timm's layout."""
    # timm counts a merge to the stage that follows it
    state = {
        re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key): value
        for key, value in state.items()
    }
    return convert_swin(state)


def _from_unfold_order(value: Tensor) -> Tensor:
    """Patch merging over ``nn.Unfold`` (channel-major, row-major) to Swin's order (patch-major, column-major)."""
    lead, channels = value.shape[:-1], value.shape[-1] // 4
    value = value.reshape(*lead, channels, 2, 2)  # (..., C, row, column)
    return value.movedim(-3, -1).transpose(-3, -2).reshape(*lead, -1)  # (..., column, row, C) as one axis


def convert_mm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """mmdet's and mmpretrain's layout, whose patch merging has another order of channels."""
    state, skipped = split(
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
    for key in state:
        if re.search(r'\.downsample\.(reduction\.weight|norm\.)', key):
            state[key] = _from_unfold_order(state[key])
    embed = state.get('absolute_pos_embed')
    if embed is not None and embed.ndim == 4:  # mmdet keeps a map (1, C, H, W)
        state['absolute_pos_embed'] = embed.flatten(2).transpose(1, 2)
    return state, skipped
