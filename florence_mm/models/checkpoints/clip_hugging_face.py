"""transformers' CLIP to the names of our two towers, and its text tower from them; a file may have one tower alone.

Source of the layout: transformers ``models/clip/modeling_clip.py``.
"""

import re
from dataclasses import replace
from typing import Any

import torch

from .clip import FIXED_SHAPES, PARTS, TEXT_SIZES, is_text_tower, take_text
from .clip_settings import TEXT, clip_settings, clip_text_settings, of_class
from .exporting import Exported, config_json, register_export
from .renaming import Names, Skipped, StateDict, any_key, keep_matching, register_format, rename
from .settings import Setting
from .swin import split_rows
from .text_settings import head_count

_TEXT = r'^text_model\.'
_IMAGE = r'^vision_model\.'


def _detect(keys: set[str]) -> bool:
    text = any_key(keys, _TEXT + r'encoder\.layers\.\d+\.self_attn\.q_proj\.') and any_key(
        keys, _TEXT + r'embeddings\.token_embedding\.'
    )
    # alone, a tower with the norm before its blocks is CLIP's; beside another text tower it is another model's
    image = any_key(keys, _IMAGE + r'pre_layrnorm\.') and not any_key(keys, _TEXT)
    # SigLIP and GroupViT
    others = any_key(keys, r'^logit_bias$|^text_model\.head\.|^text_projection\.\d|^visual_projection\.\d')
    return (text or image) and not others


@register_format('Hugging Face CLIP', _detect, settings=clip_settings, fixed_shapes=FIXED_SHAPES)
def convert_hf_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the towers of transformers' CLIP."""
    state = rename(
        state,
        [
            (_TEXT + r'embeddings\.token_embedding\.', 'text_encoder.token_embedding.'),
            (_TEXT + r'embeddings\.position_embedding\.weight$', 'text_encoder.positional_embedding'),
            (_TEXT + r'final_layer_norm\.', 'text_encoder.ln_final.'),
            (_TEXT + r'encoder\.layers\.', 'text_encoder.resblocks.'),
            (r'^text_projection\.weight$', 'text_projection'),
            (_IMAGE + r'embeddings\.class_embedding$', 'image_encoder.class_embedding'),
            (_IMAGE + r'embeddings\.patch_embedding\.', 'image_encoder.conv1.'),
            (_IMAGE + r'embeddings\.position_embedding\.weight$', 'image_encoder.positional_embedding'),
            (_IMAGE + r'pre_layrnorm\.', 'image_encoder.ln_pre.'),
            (_IMAGE + r'post_layernorm\.', 'image_encoder.ln_post.'),
            (_IMAGE + r'encoder\.layers\.', 'image_encoder.resblocks.'),
            (r'^visual_projection\.weight$', 'image_projection'),
            (r'(\.resblocks\.\d+)\.layer_norm(\d)\.', r'\1.ln_\2.'),
            (r'(\.resblocks\.\d+)\.mlp\.fc1\.', r'\1.mlp.c_fc.'),
            (r'(\.resblocks\.\d+)\.mlp\.fc2\.', r'\1.mlp.c_proj.'),
            (r'(\.resblocks\.\d+)\.self_attn\.out_proj\.', r'\1.attn.out_proj.'),
        ],
    )
    state, skipped = keep_matching(state, PARTS, 'not part of the towers')
    for name in ('text_projection', 'image_projection'):
        if name in state:
            state[name] = state[name].t().contiguous()  # [out, in] to [in, out]
    for key in [key for key in state if '.self_attn.q_proj.' in key]:
        names = [key.replace('q_proj', f'{name}_proj') for name in 'qkv']
        if absent := next((name for name in names if name not in state), None):
            raise ValueError(f'it has {key} and not {absent}; it is incomplete')
        state[re.sub(r'self_attn\.q_proj\.', 'attn.in_proj_', key)] = torch.cat([state.pop(name) for name in names])
    return state, skipped


# --- out of ours: texts ---------------------------------------------------------------------------------------------

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

#: Its config.json tells the others.
_HF_SETTINGS = [
    Setting('num_heads', '', of_class(TEXT, 'num_heads'), ()),
    *(s if s.argument == 'causal' else replace(s, accepted=()) for s in clip_text_settings()),
]


@register_export(
    'Hugging Face CLIP',
    is_text_tower,
    settings=_HF_SETTINGS,
    model_types=('clip_text_model',),
)
def export_hf_clip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write a ``CLIPTextModelWithProjection``, or a ``CLIPTextModel`` if there is no projection, with its config."""
    state, left_out = take_text(state, 'the text tower of transformers')
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
    words, positions, hidden = (state[f'text_encoder.{name}'] for name in TEXT_SIZES)
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
