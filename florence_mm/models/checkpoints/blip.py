"""BLIP's public checkpoints and transformers', to and from our names.

Sources of the layouts: salesforce/BLIP ``models/blip_pretrain.py``, ``blip_retrieval.py``, ``blip.py`` and
``blip_vqa.py``; transformers ``models/blip/modeling_blip.py``. Our heads are named ``itc``, ``itm`` and ``caption``, or
``vqa`` where the decoder shares nothing with the encoder.

A file may have the encoder alone (retrieval) or the decoder alone (captions). The self-attention of the other, which
such a model does not use, then is a copy of the one that it has.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .bert_layers import LAYERS, give_words_head, join_projections, split_projections, take_words_head
from .clip import FIXED_SHAPES
from .clip_settings import IMAGE, as_dict, of_class
from .exporting import Exported, config_json, hold, register_export
from .plain_vit import convert_vit, export_vit, from_tower, is_plain_vit, plain_vit_settings, to_tower
from .renaming import COMPUTED, Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format
from .settings import Setting
from .text_modes import as_causal, as_own, same
from .text_settings import head_count, norm_eps

_CROSS = r'^text_(encoder|decoder\.bert)\.encoder\.layer\.\d+\.crossattention\.self\.query\.weight$'
#: Theirs and ours, of what is not a tower.
PARTS = Names(
    ('^vision_proj.', '^heads.itc.image_proj.'),
    ('^text_proj.', '^heads.itc.text_proj.'),
    ('^vision_proj_m.', '^heads.itc.copies.image_proj.'),
    ('^text_proj_m.', '^heads.itc.copies.text_proj.'),
    ('^temp$', '^heads.itc.temperature$'),
    ('^itm_head.', '^heads.itm.fc.'),
)
_COPIES = 'heads.itc.copies.towers.'
_QUEUE = 'heads.itc.queue.'
_OURS = r'^heads\.(itc\.(image_proj|text_proj|temperature|copies\.(image_proj|text_proj))|itm\.fc)'
#: Names of transformers' image encoder.
HF_VIT = Names(
    ('^embeddings.class_embedding$', '^class_embedding$'),
    ('^embeddings.position_embedding$', '^positional_embedding$'),
    ('^embeddings.patch_embedding.', '^conv1.'),
    ('^encoder.layers.#.layer_norm#.', '^resblocks.#.ln_#.'),
    ('^encoder.layers.#.self_attn.qkv.', '^resblocks.#.attn.in_proj_'),
    ('^encoder.layers.#.self_attn.projection.', '^resblocks.#.attn.out_proj.'),
    ('^encoder.layers.#.mlp.fc1.', '^resblocks.#.mlp.c_fc.'),
    ('^encoder.layers.#.mlp.fc2.', '^resblocks.#.mlp.c_proj.'),
    ('^post_layernorm.', '^ln_post.'),
)


# --- into ours --------------------------------------------------------------------------------------------------------


def _detect(keys: set[str], image: str) -> bool:
    """Whether keys are BLIP's, with an image encoder of that prefix; ALBEF's encoder has token types."""
    return any_key(keys, image) and any_key(keys, _CROSS) and not any_key(keys, r'embeddings\.token_type_embeddings\.')


def _take_text(state: StateDict, prefix: str) -> StateDict:
    """Take a text model out of a state, under our names."""
    part = {key: value for key, value in pop_prefix(state, prefix).items() if not key.endswith(COMPUTED)}
    return join_projections(LAYERS.to_ours(part))


def _convert_text(state: StateDict) -> StateDict:
    """Convert encoder, decoder and vocabulary head; removes them from ``state``.

    Raises:
        ValueError: the head's matrix is not the word embeddings.
    """
    encoder, decoder = _take_text(state, r'text_encoder\.'), _take_text(state, r'text_decoder\.bert\.')
    words = decoder.get('embeddings.word_embeddings.weight')
    head = take_words_head(state, r'text_decoder\.cls\.', words, 'BLIP')
    apart = (
        encoder
        and decoder
        and any('.attention.' not in key and not same(encoder.get(key), decoder[key]) for key in decoder)
    )
    name = 'vqa' if apart else 'caption'
    converted = add_prefix(head, f'heads.{name}.')
    if apart:
        return {**converted, **add_prefix(encoder, 'text_encoder.'), **add_prefix(decoder, 'text_decoder.')}
    shared = {**(encoder or decoder), **as_causal(decoder or encoder)}
    return {**converted, **add_prefix(shared, 'text_encoder.')}


@register_format(
    'BLIP',
    lambda keys: _detect(keys, r'^visual_encoder\.blocks\.'),
    settings=plain_vit_settings,
    fixed_shapes=FIXED_SHAPES,
)
def convert_blip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert salesforce's files: pretraining with queue and momentum model, captions, retrieval, questions."""
    state = dict(state)
    converted = add_prefix(convert_vit(pop_prefix(state, r'visual_encoder\.')), 'image_encoder.')
    converted |= _convert_text(state)
    image_m, text_m = pop_prefix(state, r'visual_encoder_m\.'), _take_text(state, r'text_encoder_m\.')
    if image_m and text_m:
        converted |= add_prefix(convert_vit(image_m), f'{_COPIES}image_encoder.')
        converted |= add_prefix(text_m, f'{_COPIES}text_encoder.')
        converted['heads.itc.copies.started'] = torch.tensor(True)
        converted['heads.itc.steps'] = torch.tensor(0)
    place = state.pop('queue_ptr', state.pop('ptr_queue', None))
    if place is not None and 'image_queue' in state:
        for name in ('image', 'text'):  # (D, Q) to (Q, D)
            converted[f'{_QUEUE}{name}'] = state.pop(f'{name}_queue').t().contiguous()
        converted[f'{_QUEUE}place'] = place.reshape(())
        unknown = torch.full((len(converted[f'{_QUEUE}image']),), -1)
        converted[f'{_QUEUE}label'] = state.pop('idx_queue', unknown).reshape(-1)
    state, skipped = hold(PARTS.to_ours(state), _OURS, 'our BLIP')
    return {**converted, **state}, skipped


@register_format(
    'Hugging Face BLIP',
    lambda keys: _detect(keys, r'^vision_model\.encoder\.layers\.\d+\.self_attn\.qkv\.'),
    settings=lambda source: (),
    fixed_shapes=FIXED_SHAPES,
)
def convert_hf_blip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert transformers' models for captions, retrieval and questions."""
    state = dict(state)
    converted = add_prefix(to_tower(pop_prefix(state, r'vision_model\.'), HF_VIT), 'image_encoder.')
    converted |= _convert_text(state)
    state, skipped = hold(PARTS.to_ours(state), _OURS, 'our BLIP')
    return {**converted, **state}, skipped


# --- out of ours ------------------------------------------------------------------------------------------------------


def _fits(keys: set[str]) -> bool:
    image = {key.removeprefix('image_encoder.') for key in keys if key.startswith('image_encoder.')}
    return is_plain_vit(image) and 'text_encoder.layers.0.crossattention.query.weight' in keys


def _give_text(state: StateDict, prefix: str) -> StateDict:
    return add_prefix(LAYERS.to_theirs(split_projections(state)), prefix)


def _export_text(state: StateDict) -> StateDict:
    """Give encoder, decoder and vocabulary head their names; removes them from ``state``."""
    encoder, decoder = pop_prefix(state, r'text_encoder\.'), pop_prefix(state, r'text_decoder\.')
    head = pop_prefix(state, r'heads\.(caption|vqa)\.')
    causal = as_own(encoder)
    own = {key: value for key, value in encoder.items() if '.causal_attention.' not in key}
    if not decoder:
        decoder = {**own, **causal}
        one_mode = all(torch.equal(value, own[key]) for key, value in causal.items())
        matching = any_key(state, r'^heads\.it[cm]\.')
        if one_mode and head and not matching:
            own = {}
        elif one_mode and not head:
            decoder = {}
    theirs = {**_give_text(own, 'text_encoder.'), **_give_text(decoder, 'text_decoder.bert.')}
    if head:
        words = decoder['embeddings.word_embeddings.weight']
        theirs |= add_prefix(give_words_head(head, words), 'text_decoder.cls.')
    return theirs


@register_export('BLIP', _fits, wrapper='model', settings=plain_vit_settings(Source('')))
def export_blip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write salesforce's layout, with those of its heads that the model has."""
    state = dict(state)
    theirs = add_prefix(export_vit(pop_prefix(state, r'image_encoder\.')), 'visual_encoder.')
    theirs |= _export_text(state)
    for flag in ('copies.started', 'steps'):
        state.pop(f'heads.itc.{flag}', None)
    image_m = pop_prefix(state, re.escape(f'{_COPIES}image_encoder.'))
    text_m = pop_prefix(state, re.escape(f'{_COPIES}text_encoder.'))
    if image_m:
        theirs |= add_prefix(export_vit(image_m), 'visual_encoder_m.') | _give_text(text_m, 'text_encoder_m.')
    queue = pop_prefix(state, re.escape(_QUEUE))
    if queue:
        theirs |= {f'{name}_queue': queue[name].t().contiguous() for name in ('image', 'text')}
        labelled = bool((queue['label'] != -1).any())
        theirs['ptr_queue' if labelled else 'queue_ptr'] = queue['place'].reshape(1)
        theirs |= {'idx_queue': queue['label'].reshape(1, -1)} if labelled else {}
    state, left_out = hold(state, _OURS, 'BLIP')
    absent = {'text_encoder.embeddings.position_ids': 'computed by BLIP'}
    return Exported({**theirs, **PARTS.to_theirs(state)}, left_out, absent)


_TEXT_HEADS, _EPS = 'num_heads of the text model', 'layer_norm_eps of the text model'
#: What its config.json tells.
_HF_SETTINGS = (
    Setting('num_heads of the image tower', '', of_class(IMAGE, 'num_heads'), ()),
    Setting('norm_eps of the image tower', '', of_class(IMAGE, 'norm_eps'), ()),
    Setting('act of the image tower', '', of_class(IMAGE, 'act'), ()),
    Setting(_TEXT_HEADS, r'(^|\.)text_encoder\..*attention$', lambda module: getattr(module, 'num_heads', None), ()),
    Setting(_EPS, r'(^|\.)text_encoder\..*LayerNorm$', norm_eps, ()),
)


@register_export('Hugging Face BLIP', _fits, settings=_HF_SETTINGS, model_types=('blip',))
def export_hf_blip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write transformers' layout with its config; queue, momentum model and temperature have no place in it.

    Raises:
        ValueError: the positions are not those of square pictures.
    """
    state = dict(state)
    vision = pop_prefix(state, r'image_encoder\.')
    text = {key: value for key, value in state.items() if key.startswith('text_encoder.')}
    theirs = add_prefix(from_tower(vision, HF_VIT), 'vision_model.') | _export_text(state)
    state, left_out = hold(state, r'^heads\.(itc\.(image_proj|text_proj)\.|itm\.fc\.)', 'transformers')
    theirs |= PARTS.to_theirs(state)
    projection = theirs.get('vision_proj.weight')
    sizes = {} if projection is None else {'image_text_hidden_size': len(projection)}
    config, notes = _hf_config(vision, text, theirs, settings)
    config |= sizes
    return Exported(theirs, left_out, {}, config, notes)


def hf_vision_config(
    model_type: str, vision: StateDict, text: tuple[str, int, str], known: Mapping[str, Any]
) -> tuple[dict[str, Any], int, list[str]]:
    """Settings of transformers for a plain ViT, and the heads of the texts beside it.

    Args:
        model_type: transformers' name of the image tower.
        vision: its state dict, in the names of :class:`CLIPVisionTower`.
        text: of the texts the part of config.json, the width, and the name of the setting of their heads.
        known: settings that are known of the model.

    Returns:
        ``vision_config``, the number of heads of the texts, and sentences about numbers of heads that were assumed.

    Raises:
        ValueError: positions are not those of a square.
    """
    before = as_dict(known.get('config.json'))
    patches = len(vision['positional_embedding']) - 1
    side = math.isqrt(patches)
    if side**2 != patches:
        raise ValueError('its image tower has not the positions of a square, and transformers takes square pictures')
    stem = vision['conv1.weight']
    notes, heads = [], {}
    for part, width, argument in (('vision_config', len(stem), 'num_heads of the image tower'), text):
        told = {'config.json': before.get(part)} | ({'num_heads': known[argument]} if argument in known else {})
        heads[part], more = head_count(told, width, argument.removeprefix('num_heads of the '))
        notes += more
    config = {
        'model_type': model_type,
        'hidden_size': len(stem),
        'intermediate_size': len(vision['resblocks.0.mlp.c_fc.weight']),
        'num_hidden_layers': len({key.split('.')[1] for key in vision if key.startswith('resblocks.')}),
        'num_attention_heads': heads['vision_config'],
        'patch_size': stem.shape[-1],
        'image_size': side * stem.shape[-1],
        'layer_norm_eps': known.get('norm_eps of the image tower', 1e-6),
        'hidden_act': known.get('act of the image tower', 'gelu'),
    }
    return config, heads[text[0]], notes


def _hf_config(
    vision: StateDict, text: StateDict, theirs: Iterable[str], known: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    theirs, before = set(theirs), as_dict(known.get('config.json'))
    words, positions = (text[f'text_encoder.embeddings.{name}_embeddings.weight'] for name in ('word', 'position'))
    vision_config, text_heads, notes = hf_vision_config(
        'blip_vision_model', vision, ('text_config', words.shape[1], _TEXT_HEADS), known
    )
    text_config = {
        'model_type': 'blip_text_model',
        'vocab_size': len(words),
        'hidden_size': words.shape[1],
        'intermediate_size': len(text['text_encoder.layers.0.intermediate.dense.weight']),
        'num_hidden_layers': len({key.split('.')[2] for key in text if key.startswith('text_encoder.layers.')}),
        'num_attention_heads': text_heads,
        'max_position_embeddings': len(positions),
        'encoder_hidden_size': text['text_encoder.layers.0.crossattention.key_value.weight'].shape[1],
        'layer_norm_eps': known.get(_EPS, 1e-12),
    }
    # BERT's ids of start, end and padding, and the two marks behind them
    marks = {'bos_token_id': len(words) - 2, 'sep_token_id': 102, 'pad_token_id': 0}
    encoder, decoder, matching = (
        any_key(theirs, rf'^{name}') for name in (r'text_encoder\.', r'text_decoder\.', 'itm_')
    )
    # a model of the pretraining has all three; transformers has no class of all, and reads its encoder
    asks = decoder and not matching
    kind = 'ConditionalGeneration' if not encoder else 'QuestionAnswering' if asks else 'ImageTextRetrieval'
    fixed = {
        'architectures': [f'BlipFor{kind}'],
        'model_type': 'blip',
        'vision_config': {**as_dict(before.get('vision_config')), **vision_config},
        'text_config': {**marks, **as_dict(before.get('text_config')), **text_config},
    }
    return config_json(known, fixed, {}), notes
