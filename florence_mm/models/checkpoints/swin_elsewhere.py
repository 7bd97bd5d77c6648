"""Conversion of torchvision's and transformers' Swin to the official Swin names, which are ours.

Sources of the layouts: torchvision ``models/swin_transformer.py``; transformers ``models/swin/modeling_swin.py``, of
which version 5 renamed the layers. Both give the features of ``CoSwin(conv_embed=False)``, torchvision's if no map is
smaller than the window.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from .renaming import Skipped, Source, StateDict, any_key, keep_matching, register_format, rename
from .settings import Setting
from .swin import OPTIONAL_PARTS, convert_swin, require_patch_norm, small_maps

_NOT_BACKBONE = 'not part of the backbone'


@register_format(
    'torchvision Swin',
    lambda k: (
        any_key(k, r'^(backbone\.)?features\.\d+\.\d+\.attn\.relative_position_bias_table$')
        # Swin V2, and Swin 3D, whose stem is no part of the features
        and not any_key(k, r'\.cpb_mlp\.|^(backbone\.)?features\.0\.\d+\.attn\.')
    ),
)
def convert_torchvision_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert torchvision's layout, whose ``features`` are in turn the stem, a stage, a patch merging, a stage ..."""
    state = rename(
        state,
        [
            (r'^backbone\.', ''),
            (r'^features\.0\.0\.', 'patch_embed.proj.'),
            (r'^features\.0\.2\.', 'patch_embed.norm.'),
            (r'^features\.(\d+)\.(reduction|norm)\.', lambda m: f'layers.{int(m[1]) // 2 - 1}.downsample.{m[2]}.'),
            (r'^features\.(\d+)\.(\d+)\.', lambda m: f'layers.{int(m[1]) // 2}.blocks.{m[2]}.'),
            (r'\.mlp\.0\.', '.mlp.fc1.'),
            (r'\.mlp\.3\.', '.mlp.fc2.'),
        ],
    )
    return convert_swin(state)


_HF = r'^(swin\.|model\.|backbone\.)?'
_HF_TABLE = r'attention\.(self|relative_position_bias)\.relative_position_bias_table$'


def _hf_settings(source: Source) -> Iterable[Setting]:
    """A ``SwinBackbone`` always partitions and shifts, a ``SwinModel`` does not on maps within one window."""
    return (small_maps(any_key(source.keys, r'(^|\.)hidden_states_norms\.')),)


@register_format(
    'Hugging Face Swin',
    lambda k: any_key(k, _HF + rf'encoder\.layers\.\d+\.blocks\.\d+\.{_HF_TABLE}'),
    settings=_hf_settings,
    optional_parts=OPTIONAL_PARTS,
)
def convert_hf_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a ``SwinModel``, alone or inside one of transformers' models with a head."""
    state, skipped = keep_matching(
        state, _HF + r'((embeddings|encoder)\.(?!mask_token)|layernorm\.|hidden_states_norms\.)', _NOT_BACKBONE
    )
    state = rename(
        state,
        [
            (_HF + r'(?=embeddings|encoder|layernorm|hidden_states_norms)', ''),
            (r'^embeddings\.position_embeddings$', 'absolute_pos_embed'),
            (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
            (r'^embeddings\.norm\.', 'patch_embed.norm.'),
            (r'^encoder\.', ''),
            (r'^layernorm\.', 'norm.'),
            (r'^hidden_states_norms\.stage(\d+)\.', lambda m: f'norm{int(m[1]) - 1}.'),
            (r'\.layernorm_before\.', '.norm1.'),
            (r'\.layernorm_after\.', '.norm2.'),
            (rf'\.{_HF_TABLE}', '.attn.relative_position_bias_table'),
            (r'\.attention\.(output\.dense|o_proj)\.', '.attn.proj.'),
            (r'\.attention\.(self\.)?(query|key|value|[qkv]_proj)\.', lambda m: f'.attn.{m[2][0]}.'),
            (r'\.(intermediate\.dense|mlp\.fc1)\.', '.mlp.fc1.'),
            (r'(blocks\.\d+)\.(output\.dense|mlp\.fc2)\.', r'\1.mlp.fc2.'),
        ],
    )
    require_patch_norm(state)
    return _use_stage_norms(_join_qkv(state)), skipped


def _join_qkv(state: StateDict) -> StateDict:
    """Concatenate the separate query, key and value projections; a missing bias (``qkv_bias=False``) is of zeros."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.match(r'(.*\.attn\.)([qkv])\.(weight|bias)$', key)
        if not match:
            joined[key] = value
        elif match[2] == 'q':
            parts = [state.get(f'{match[1]}{name}.{match[3]}') for name in 'qkv']
            if any(part is None for part in parts):
                raise ValueError(f'it has no query, key and value for {match[1][:-1]}; it is incomplete')
            joined[f'{match[1]}qkv.{match[3]}'] = torch.cat(parts)
            if match[3] == 'weight' and f'{match[1]}q.bias' not in state:
                joined[f'{match[1]}qkv.bias'] = value.new_zeros(3 * len(value))
    return joined


def _use_stage_norms(state: StateDict) -> StateDict:
    """Use the norms of a ``SwinBackbone``'s stages; that of the last stage takes the place of the model's."""
    last = max((int(m[1]) for key in state if (m := re.match(r'layers\.(\d+)\.', key))), default=0)
    for key in [key for key in state if key.startswith(f'norm{last}.')]:
        state[key.replace(f'norm{last}.', 'norm.')] = state.pop(key)
    return state
