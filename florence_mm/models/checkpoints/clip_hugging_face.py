"""transformers' CLIP to the names of our two towers and back; a file may have one tower alone.

Source of the layout: transformers ``models/clip/modeling_clip.py``.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .clip import FIXED_SHAPES, PARTS, TEXT_SIZES, is_text_tower, take_text
from .clip_settings import IMAGE, TEXT, clip_settings, of_class
from .exporting import CONFIG, Exported, config_json, register_export, require
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
)
from .settings import Setting
from .swin import split_rows
from .text_settings import head_count

_NAMES = Names(
    ('^text_model.embeddings.token_embedding.', '^text_encoder.token_embedding.'),
    ('^text_model.embeddings.position_embedding.weight$', '^text_encoder.positional_embedding$'),
    ('^text_model.final_layer_norm.', '^text_encoder.ln_final.'),
    ('^text_model.encoder.layers.', '^text_encoder.resblocks.'),
    ('^text_projection.weight$', '^text_projection$'),
    ('^vision_model.embeddings.class_embedding$', '^image_encoder.class_embedding$'),
    ('^vision_model.embeddings.patch_embedding.', '^image_encoder.conv1.'),
    ('^vision_model.embeddings.position_embedding.weight$', '^image_encoder.positional_embedding$'),
    ('^vision_model.pre_layrnorm.', '^image_encoder.ln_pre.'),
    ('^vision_model.post_layernorm.', '^image_encoder.ln_post.'),
    ('^vision_model.encoder.layers.', '^image_encoder.resblocks.'),
    ('^visual_projection.weight$', '^image_projection$'),
    ('.resblocks.#.layer_norm#.', '.resblocks.#.ln_#.'),
    ('.resblocks.#.mlp.fc1.', '.resblocks.#.mlp.c_fc.'),
    ('.resblocks.#.mlp.fc2.', '.resblocks.#.mlp.c_proj.'),
    ('.resblocks.#.self_attn.out_proj.', '.resblocks.#.attn.out_proj.'),
)
_IMAGE_SIZES = ('conv1.weight', 'positional_embedding', 'resblocks.0.mlp.c_fc.weight')
#: What its config.json tells, and the mask, which it does not.
_SETTINGS = [
    Setting('num_heads', '', of_class(TEXT, 'num_heads'), ()),
    Setting('num_heads of the image tower', '', of_class(IMAGE, 'num_heads'), ()),
    *(s if s.argument == 'causal' else replace(s, accepted=()) for s in clip_settings(Source('clip://'))),
]
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
    state = _NAMES.to_ours(state)
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


def _is_pair(keys: Collection[str]) -> bool:
    return {'image_encoder.class_embedding', 'image_projection'} <= set(keys)


@register_export(
    'Hugging Face CLIP',
    lambda keys: is_text_tower(keys) or _is_pair(keys),
    settings=_SETTINGS,
    model_types=('clip', 'clip_text_model', 'clip_vision_model'),
)
def export_hf_clip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write what there is, with its config: a ``CLIPModel``, or a tower, with its projection if there is one.

    The image tower is left out if it is none of CLIP's.
    """
    image, image_only = _is_pair(state), not is_text_tower(state)
    vision = pop_prefix(state, r'image_encoder\.') if image else {}
    vision_projection = state.pop('image_projection') if image else None
    state, left_out = (state, {}) if image_only else take_text(state, 'transformers')
    projection = state.pop('text_projection', None)
    both = image and projection is not None and 'logit_scale' in state
    if image and not image_only and not both:
        raise ValueError('it has both towers and lacks text_projection or logit_scale; give --prefix of one tower')
    if not both and state.pop('logit_scale', None) is not None:
        left_out['logit_scale'] = 'a tower of transformers alone has no place for it'
    parts, notes = {}, []
    if not image_only:
        parts['text_config'], more = _text_config(state, projection, settings)
        notes += more
    if image:
        parts['vision_config'], more = vision_config(vision, vision_projection, settings)
        notes += more
    config = parts.popitem()[1] if len(parts) == 1 else _pair_config(parts, projection, settings)
    state |= add_prefix(vision, 'image_encoder.')
    for name, value in (('text_projection', projection), ('image_projection', vision_projection)):
        if value is not None:
            state[name] = value.t()  # [in, out] to [out, in]
    return Exported(to_hugging_face(state), left_out, {}, config, notes)


def to_hugging_face(state: StateDict) -> StateDict:
    """Give towers, under our names with ``image_encoder.`` or ``text_encoder.``, those of transformers."""
    split = {}
    for key, value in state.items():
        if '.attn.in_proj_' not in key:
            split[key] = value
            continue
        for name, part in zip('qkv', split_rows(value), strict=True):
            split[key.replace('attn.in_proj_', f'self_attn.{name}_proj.')] = part
    return _NAMES.to_theirs(split)


def _text_config(
    state: StateDict, projection: Tensor | None, known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    words, positions, hidden = (state[f'text_encoder.{name}'] for name in TEXT_SIZES)
    sizes, notes = _sizes(state, 'text_encoder', hidden, projection, known)
    fixed = {
        'architectures': ['CLIPTextModel' if projection is None else 'CLIPTextModelWithProjection'],
        'model_type': 'clip_text_model',
        'vocab_size': len(words),
        'max_position_embeddings': len(positions),
        **sizes,
    }
    # the features are those of the end token, which is the largest
    assumed = {'bos_token_id': len(words) - 2, 'eos_token_id': len(words) - 1, 'pad_token_id': len(words) - 1}
    return config_json(_before(known, 'text_config'), fixed, assumed), notes


def vision_config(
    vision: StateDict, projection: Tensor | None, known: Mapping[str, Any], model_type: str = 'clip_vision_model'
) -> tuple[dict[str, Any], list[str]]:
    """Make transformers' config of an image tower, with notes on what is assumed.

    Args:
        vision: tensors of the tower under our names.
        projection: ``(C, shared)``, its projection; None: it has none.
        known: what is known of the model beside its tensors.
        model_type: the config's kind; those of models with a tower of CLIP's inside have a name of their own.

    Raises:
        ValueError: a tensor is missing, or the positions are not those of a square.
    """
    require(vision, *_IMAGE_SIZES)
    stem, positions, hidden = (vision[name] for name in _IMAGE_SIZES)
    sizes, notes = _sizes(add_prefix(vision, 'image_encoder.'), 'image_encoder', hidden, projection, known)
    side = math.isqrt(len(positions) - 1)
    if side**2 != len(positions) - 1:
        raise ValueError(f'its image tower has {len(positions) - 1} positions, and transformers takes square pictures')
    fixed = {
        **({} if projection is None else {'architectures': ['CLIPVisionModelWithProjection']}),
        'model_type': model_type,
        'patch_size': stem.shape[-1],
        'num_channels': stem.shape[1],
        'image_size': side * stem.shape[-1],
        **sizes,
    }
    return config_json(_before(known, 'vision_config'), fixed, {}), notes


def _pair_config(parts: Mapping[str, dict[str, Any]], projection: Tensor, known: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {'architectures': ['CLIPModel'], 'model_type': 'clip', 'projection_dim': projection.shape[1], **parts}
    return config_json(known, fixed, {})


def _before(known: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The config of a tower before, alone or in that of both."""
    config = known.get(CONFIG)
    return {CONFIG: config.get(part, config) if isinstance(config, dict) else None}


def _sizes(
    state: StateDict, tower: str, hidden: Tensor, projection: Tensor | None, known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """What both towers have: sizes, and the settings that no shape tells."""
    kind, eps = (' of the image tower', 1e-5) if tower == 'image_encoder' else ('', 1e-12)
    part = 'vision_config' if kind else 'text_config'
    before = _before(known, part)
    if f'num_heads{kind}' in known:
        before['num_heads'] = known[f'num_heads{kind}']
    heads, notes = head_count(before, hidden.shape[1], 'image tower' if kind else 'text tower')
    found = {}
    for name, default in (('act', 'quick_gelu'), ('norm_eps', eps)):
        found[name] = known.get(f'{name}{kind}', default)
        if f'{name}{kind}' not in known:
            notes.append(f'the file does not tell {name}{kind}, our default is taken: {default!r}')
    return {
        'hidden_size': hidden.shape[1],
        'intermediate_size': len(hidden),
        'num_hidden_layers': len({key.split('.')[2] for key in state if key.startswith(f'{tower}.resblocks.')}),
        'num_attention_heads': heads,
        'hidden_act': found['act'],
        'layer_norm_eps': found['norm_eps'],
        **({} if projection is None else {'projection_dim': projection.shape[1]}),
    }, notes
