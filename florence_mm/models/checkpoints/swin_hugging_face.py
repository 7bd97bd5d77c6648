"""Swin of transformers (``models/swin/modeling_swin.py``): a ``SwinModel``, a ``SwinBackbone``, or inside of a model.

Files have the names of before its version 5, which renamed the layers of its modules and still reads and writes those.
It gives the features of ``CoSwin(conv_embed=False)``.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .exporting import Exported, config_json, register_export, require
from .renaming import Names, Skipped, Source, StateDict, any_key, keep_matching, register_format, rename
from .settings import Setting
from .swin import (
    NOT_BACKBONE,
    OPTIONAL_PARTS,
    is_swin,
    last_stage,
    require_patch_norm,
    small_maps,
    split_rows,
    take_swin,
    window_of,
)

_NAME = 'Hugging Face Swin'
_BEFORE = r'^(swin\.|model\.|backbone\.)?'
_TABLE = r'attention\.(self|relative_position_bias)\.relative_position_bias_table$'
#: Names of the modules since version 5 -> names in files.
_SINCE_5 = [
    (r'\.attention\.relative_position_bias\.', '.attention.self.'),
    (r'\.attention\.q_proj\.', '.attention.self.query.'),
    (r'\.attention\.k_proj\.', '.attention.self.key.'),
    (r'\.attention\.v_proj\.', '.attention.self.value.'),
    (r'\.attention\.o_proj\.', '.attention.output.dense.'),
    (r'\.mlp\.fc1\.', '.intermediate.dense.'),
    (r'\.mlp\.fc2\.', '.output.dense.'),
]
_NAMES = Names(
    ('^embeddings.position_embeddings$', '^absolute_pos_embed$'),
    ('^embeddings.patch_embeddings.projection.', '^patch_embed.proj.'),
    ('^embeddings.norm.', '^patch_embed.norm.'),
    ('^encoder.layers.', '^layers.'),
    ('^layernorm.', '^norm.'),
    ('.layernorm_before.', '.norm1.'),
    ('.layernorm_after.', '.norm2.'),
    ('.attention.self.', '.attn.'),
    ('.attention.output.dense.', '.attn.proj.'),
    ('.intermediate.dense.', '.mlp.fc1.'),
    ('.output.dense.', '.mlp.fc2.'),
)
_STAGE_NORM = r'^hidden_states_norms\.stage(\d+)\.'
_UNUSED = 'not used by a SwinBackbone'
_PARTS = ('query', 'key', 'value')


def _settings(source: Source) -> Iterable[Setting]:
    """A ``SwinBackbone`` always partitions and shifts, a ``SwinModel`` does not on maps within one window."""
    return (small_maps(any_key(source.keys, r'(^|\.)hidden_states_norms\.')),)


@register_format(
    _NAME,
    lambda k: any_key(k, _BEFORE + rf'encoder\.layers\.\d+\.blocks\.\d+\.{_TABLE}'),
    settings=_settings,
    optional_parts=OPTIONAL_PARTS,
)
def convert_hf_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a ``SwinModel``, alone or inside one of transformers' models with a head."""
    state, skipped = keep_matching(
        state, _BEFORE + r'((embeddings|encoder)\.(?!mask_token)|layernorm\.|hidden_states_norms\.)', NOT_BACKBONE
    )
    state = rename(state, [(_BEFORE + r'(?=embeddings|encoder|layernorm|hidden_states_norms)', ''), *_SINCE_5])
    if any_key(state, _STAGE_NORM):
        state, unused = keep_matching(state, r'^(?!layernorm\.)', _UNUSED)
        skipped |= unused
        last = f'norm{last_stage(state)}.'
        state = rename(state, [(_STAGE_NORM, lambda m: f'norm{int(m[1]) - 1}.'), (rf'^{last}', 'norm.')])
    state = _join_qkv(_NAMES.to_ours(state))
    require_patch_norm(state)
    return state, skipped


@register_export(_NAME, is_swin, model_types=('swin',))
def export_hf_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write a ``SwinModel``, or a ``SwinBackbone`` if there are norms of several stages, with its ``config.json``.

    Raises:
        ValueError: the model pads small maps, and a ``SwinModel`` does not, or the other way round.
    """
    state, left_out = take_swin(state, 'transformers', positions=True, stage_norms=True)
    last = last_stage(state)
    norms = sorted(int(m[1]) for key in state if (m := re.match(r'norm(\d)\.weight$', key)))
    pads = settings.get('pad_small_map')
    kind = 'SwinBackbone' if norms else 'SwinModel'
    if pads is not None and pads != bool(norms):
        raise ValueError(
            f'its weights need pad_small_map={pads}, and a {kind} of transformers computes with {bool(norms)}'
        )
    notes = [] if pads is not None else [f'a {kind} computes with pad_small_map={bool(norms)}, the file does not tell']
    config = _config(state, settings, kind, norms + [last] * bool(norms and 'norm.weight' in state))
    absent = {}
    if norms:
        state = rename(state, [(r'^norm\.', f'norm{last}.'), (r'^norm(\d)\.', _stage_norm)])
        absent = {'layernorm': _UNUSED}
    return Exported(_split_qkv(_NAMES.to_theirs(state)), left_out, absent, config, notes)


def _stage_norm(match: re.Match) -> str:
    return f'hidden_states_norms.stage{int(match[1]) + 1}.'


def _config(state: StateDict, settings: dict[str, Any], kind: str, stages: list[int]) -> dict[str, Any]:
    """What transformers builds the model from; a position embedding tells the size of the pictures."""
    require(state, 'patch_embed.proj.weight', 'layers.0.blocks.0.mlp.fc1.weight')
    stem, window = state['patch_embed.proj.weight'], window_of(state)
    tables = {key: value for key, value in state.items() if key.endswith('relative_position_bias_table')}
    heads = {int(key.split('.')[1]): value.shape[1] for key, value in tables.items()}
    embed = state.get('absolute_pos_embed')
    assumed = {'image_size': 32 * window, 'layer_norm_eps': 1e-5, 'hidden_act': 'gelu'}
    if embed is not None:
        assumed['image_size'] = round(embed.shape[1] ** 0.5) * stem.shape[-1]
    fixed = {
        'architectures': [kind],
        'model_type': 'swin',
        'patch_size': stem.shape[-1],
        'num_channels': stem.shape[1],
        'embed_dim': len(stem),
        'depths': [sum(key.startswith(f'layers.{stage}.') for key in tables) for stage in sorted(heads)],
        'num_heads': [heads[stage] for stage in sorted(heads)],
        'window_size': window,
        'mlp_ratio': len(state['layers.0.blocks.0.mlp.fc1.weight']) / len(stem),
        'qkv_bias': True,
        'use_absolute_embeddings': embed is not None,
    }
    if stages:
        fixed['out_features'] = [f'stage{stage + 1}' for stage in stages]
    return config_json(settings, fixed, assumed)


def _split_qkv(state: StateDict) -> StateDict:
    """Split the joint projections into query, key and value."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if '.self.qkv.' not in key:
            split[key] = value
            continue
        for name, part in zip(_PARTS, split_rows(value), strict=True):
            split[key.replace('.qkv.', f'.{name}.')] = part
    return split


def _join_qkv(state: StateDict) -> StateDict:
    """Concatenate the separate query, key and value projections; a missing bias (``qkv_bias=False``) is of zeros."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.match(r'(.*\.attn\.)(query|key|value)\.(weight|bias)$', key)
        if not match:
            joined[key] = value
        elif match[2] == 'query':
            parts = [state.get(f'{match[1]}{name}.{match[3]}') for name in _PARTS]
            if any(part is None for part in parts):
                raise ValueError(f'it has no query, key and value for {match[1][:-1]}; it is incomplete')
            joined[f'{match[1]}qkv.{match[3]}'] = torch.cat(parts)
            if match[3] == 'weight' and f'{match[1]}query.bias' not in state:
                joined[f'{match[1]}qkv.bias'] = value.new_zeros(3 * len(value))
    return joined
