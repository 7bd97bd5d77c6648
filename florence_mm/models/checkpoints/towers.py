"""Two-tower models and CLIP's text towers, to and from the names of UniCL's releases, which are ours.

Sources of the layouts: UniCL ``model/model.py``, MedImageInsight ``UniCLModel.py``, open_clip ``model.py``,
transformers ``modeling_clip.py``.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch

from .exporting import Exported, config_json, hold, register_export, require
from .renaming import (
    Names,
    Skipped,
    Source,
    StateDict,
    add_prefix,
    any_key,
    keep_matching,
    pop_prefix,
    register_format,
    rename,
)
from .swin import is_backbone, is_swin, position_indices, split_rows, take_swin
from .text_settings import clip_settings, head_count, head_setting, medimageinsight_settings, unicl_settings

_OLD_UNICL = Names(
    ('^visual.', '^image_encoder.'), ('^text.', '^text_encoder.'), ('^vision_projection$', '^image_projection$')
)
_MEDIMAGEINSIGHT = Names(('^lang_encoder.', '^text_encoder.'), ('^lang_projection$', '^text_projection$'))

# --- two towers -----------------------------------------------------------------------------------------------------


@register_format(
    'UniCL, old layout',
    lambda k: any_key(k, r'^visual\.') and any_key(k, r'^text\.resblocks\.'),
    settings=unicl_settings,
)
def convert_old_unicl(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout of UniCL's first releases."""
    return _OLD_UNICL.to_ours(state), {}


@register_format(
    'MedImageInsight', lambda k: any_key(k, r'^lang_encoder\.resblocks\.'), settings=medimageinsight_settings
)
def convert_medimageinsight(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert MedImageInsight's two towers."""
    return _MEDIMAGEINSIGHT.to_ours(state), {}


def _has_two_towers(keys: Collection[str]) -> bool:
    return any_key(keys, r'^image_encoder\.') and any_key(keys, r'^text_encoder\.(?!model\.)')


@register_export('UniCL', _has_two_towers, wrapper='model', settings=unicl_settings(Source('')))
def export_unicl(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of UniCL's releases, whose names are ours; a window backbone must be a Swin."""
    return _two_towers(state, 'UniCL', take_swin)


@register_export('UniCL, old layout', _has_two_towers, settings=unicl_settings(Source('')))
def export_old_unicl(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of UniCL's first releases."""
    exported = _two_towers(state, 'UniCL', take_swin)
    exported.tensors = _OLD_UNICL.to_theirs(exported.tensors)
    return exported


@register_export('MedImageInsight', _has_two_towers, settings=medimageinsight_settings(Source('')))
def export_medimageinsight(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write MedImageInsight's layout; a window backbone must be a CoSwin."""
    exported = _two_towers(state, 'MedImageInsight', _take_coswin)
    exported.tensors = _MEDIMAGEINSIGHT.to_theirs(exported.tensors)
    return exported


def _two_towers(state: StateDict, layout: str, take: Callable[[StateDict, str], tuple[StateDict, Skipped]]) -> Exported:
    state, left_out = hold(state, r'^((image|text)_encoder\.|(image|text)_projection$|logit_scale$)', layout)
    require(state, 'image_projection', 'text_projection', 'logit_scale')
    image, absent = pop_prefix(state, r'image_encoder\.'), {}
    if is_backbone(image):
        image, more = take(image, layout)
        image |= position_indices(image)
        left_out |= add_prefix(more, 'image_encoder.')
        absent = {'image_encoder.*.attn_mask': 'computed by the package, from the size of its pictures'}
    return Exported({**add_prefix(image, 'image_encoder.'), **state}, left_out, absent)


def _take_coswin(state: StateDict, layout: str) -> tuple[StateDict, Skipped]:
    if is_swin(state):
        raise ValueError(f"its patch merging is Swin's, and the backbone of {layout} is a CoSwin with convolutions")
    return state, {}


# --- CLIP text towers -----------------------------------------------------------------------------------------------

_TEXT = r'^(text_encoder\.|text_projection$|logit_scale$)'
_NOT_TEXT = "not part of CLIP's text tower"


@register_format(
    'CLIP',
    lambda k: (
        any_key(k, r'^(text\.)?transformer\.resblocks\.\d+\.attn\.in_proj_weight$')
        and any_key(k, r'^(text\.)?token_embedding\.weight$')
        # the text towers of SigLIP and CoCa have other pooling and masks
        and not any_key(k, r'^logit_bias$|^(text\.)?text_projection\.|^text\.cls_emb$')
    ),
    settings=clip_settings,
)
def convert_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the text tower of CLIP and open_clip."""
    state = rename(
        state,
        [
            (r'^text\.(transformer\.|token_embedding\.|positional_embedding|ln_final\.|text_projection)', r'\1'),
            (r'^transformer\.', 'text_encoder.'),
            (r'^(token_embedding\.|positional_embedding$|ln_final\.)', r'text_encoder.\1'),
        ],
    )
    return keep_matching(state, _TEXT, _NOT_TEXT)


@register_format(
    'Hugging Face CLIP',
    lambda k: (
        any_key(k, r'^text_model\.encoder\.layers\.\d+\.self_attn\.q_proj\.')
        and any_key(k, r'^text_model\.embeddings\.token_embedding\.')
        # SigLIP and GroupViT
        and not any_key(k, r'^logit_bias$|^text_model\.head\.|^text_projection\.\d')
    ),
    settings=clip_settings,
)
def convert_hf_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the text tower of transformers' CLIP."""
    state = rename(
        state,
        [
            (r'^text_model\.embeddings\.token_embedding\.', 'text_encoder.token_embedding.'),
            (r'^text_model\.embeddings\.position_embedding\.weight$', 'text_encoder.positional_embedding'),
            (r'^text_model\.final_layer_norm\.', 'text_encoder.ln_final.'),
            (r'^text_model\.encoder\.layers\.', 'text_encoder.resblocks.'),
            (r'^(text_encoder\.resblocks\.\d+)\.layer_norm(\d)\.', r'\1.ln_\2.'),
            (r'^(text_encoder\.resblocks\.\d+)\.mlp\.fc1\.', r'\1.mlp.c_fc.'),
            (r'^(text_encoder\.resblocks\.\d+)\.mlp\.fc2\.', r'\1.mlp.c_proj.'),
            (r'^(text_encoder\.resblocks\.\d+)\.self_attn\.out_proj\.', r'\1.attn.out_proj.'),
            (r'^text_projection\.weight$', 'text_projection'),
        ],
    )
    state, skipped = keep_matching(state, _TEXT, _NOT_TEXT)
    if 'text_projection' in state:
        state['text_projection'] = state['text_projection'].t().contiguous()  # [out, in] to [in, out]
    for key in [key for key in state if '.self_attn.q_proj.' in key]:
        parts = [state.pop(key.replace('q_proj', f'{name}_proj')) for name in 'qkv']
        state[re.sub(r'self_attn\.q_proj\.', 'attn.in_proj_', key)] = torch.cat(parts)
    return state, skipped


# --- out of ours: texts ---------------------------------------------------------------------------------------------

_TOWER = r'^(text_encoder\.)?(?=(resblocks|token_embedding|ln_final)\.|positional_embedding$)'
_SIZES = ('token_embedding.weight', 'positional_embedding', 'resblocks.0.mlp.c_fc.weight')
_CLIP_TEXT = Names(
    ('^transformer.', '^text_encoder.'),
    ('^token_embedding.', '^text_encoder.token_embedding.'),
    ('^positional_embedding$', '^text_encoder.positional_embedding$'),
    ('^ln_final.', '^text_encoder.ln_final.'),
)
_HF_TEXT = Names(
    ('^text_model.embeddings.token_embedding.', '^text_encoder.token_embedding.'),
    ('^text_model.embeddings.position_embedding.weight$', '^text_encoder.positional_embedding$'),
    ('^text_model.final_layer_norm.', '^text_encoder.ln_final.'),
    ('^text_model.encoder.layers.', '^text_encoder.resblocks.'),
    ('^text_encoder.resblocks.#.layer_norm#.', '^text_encoder.resblocks.#.ln_#.'),
    ('^text_encoder.resblocks.#.mlp.fc1.', '^text_encoder.resblocks.#.mlp.c_fc.'),
    ('^text_encoder.resblocks.#.mlp.fc2.', '^text_encoder.resblocks.#.mlp.c_proj.'),
    ('^text_encoder.resblocks.#.self_attn.out_proj.', '^text_encoder.resblocks.#.attn.out_proj.'),
)


_NO_FOLDER = Source('clip://')  # no config can lie beside it


def _is_text_tower(keys: Collection[str]) -> bool:
    return any_key(keys, r'^(text_encoder\.)?resblocks\.\d+\.attn\.in_proj_weight$')


def _take_text(state: StateDict, layout: str) -> tuple[StateDict, Skipped]:
    """Take a text tower, alone or out of a model of two, with what belongs to it."""
    state = {re.sub(_TOWER, 'text_encoder.', key): value for key, value in state.items()}
    require(state, *(f'text_encoder.{name}' for name in _SIZES))
    return hold(state, _TEXT, layout)


@register_export('CLIP', _is_text_tower, settings=clip_settings(_NO_FOLDER))
def export_clip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the text tower of CLIP and open_clip."""
    state, left_out = _take_text(state, 'CLIP')
    absent = {key: 'not in the source' for key in ('text_projection', 'logit_scale') if key not in state}
    return Exported(_CLIP_TEXT.to_theirs(state), left_out, {'visual': 'not in the source', **absent})


#: Its config.json tells the others.
_HF_SETTINGS = [
    head_setting(r'(^|\.)resblocks\.\d+\.attn$', 'num_heads'),
    *(s if s.argument == 'causal' else replace(s, accepted=()) for s in clip_settings(_NO_FOLDER)),
]


@register_export(
    'Hugging Face CLIP',
    _is_text_tower,
    settings=_HF_SETTINGS,
    model_types=('clip_text_model',),
)
def export_hf_clip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write a ``CLIPTextModelWithProjection``, or a ``CLIPTextModel`` if there is no projection, with its config."""
    state, left_out = _take_text(state, 'the text tower of transformers')
    if state.pop('logit_scale', None) is not None:
        left_out['logit_scale'] = 'the text tower of transformers has no place for it'
    config, notes = _hf_config(state, settings)
    projection = state.pop('text_projection', None)
    for key in [key for key in state if '.attn.in_proj_' in key]:
        for name, part in zip('qkv', split_rows(state.pop(key)), strict=True):
            state[key.replace('attn.in_proj_', f'self_attn.{name}_proj.')] = part
    state = _HF_TEXT.to_theirs(state)
    if projection is not None:
        state['text_projection.weight'] = projection.t()  # [in, out] to [out, in]
    return Exported(state, left_out, {}, config, notes)


def _hf_config(state: StateDict, settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    words, positions, hidden = (state[f'text_encoder.{name}'] for name in _SIZES)
    heads, notes = head_count(settings, words.shape[1])
    projection = state.get('text_projection')
    for name, default in (('act', 'quick_gelu'), ('norm_eps', 1e-12)):
        if name not in settings:
            notes.append(f'the file does not tell {name}, that of CLIPTextTower by default is taken: {default!r}')
    fixed = {
        'architectures': ['CLIPTextModel' if projection is None else 'CLIPTextModelWithProjection'],
        'model_type': 'clip_text_model',
        'vocab_size': len(words),
        'hidden_size': words.shape[1],
        'intermediate_size': len(hidden),
        'num_hidden_layers': len({key.split('.')[2] for key in state if key.startswith('text_encoder.resblocks.')}),
        'num_attention_heads': heads,
        'max_position_embeddings': len(positions),
        'hidden_act': settings.get('act', 'quick_gelu'),
        'layer_norm_eps': settings.get('norm_eps', 1e-12),
        **({} if projection is None else {'projection_dim': projection.shape[1]}),
    }
    # the features are those of the end token, which is the largest
    assumed = {'bos_token_id': len(words) - 2, 'eos_token_id': len(words) - 1, 'pad_token_id': len(words) - 1}
    return config_json(settings, fixed, assumed), notes
