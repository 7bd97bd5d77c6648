"""BLIP-2's public checkpoints and transformers', to and from our names.

Sources of the layouts: LAVIS ``lavis/models/blip2_models/blip2_qformer.py``, ``Qformer.py``, ``blip2_opt.py``,
``blip2_t5.py`` and ``lavis/models/eva_vit.py``; transformers ``models/blip_2/modeling_blip_2.py``. Our heads are named
``itc``, ``itm`` and ``caption``.

The norm behind the image encoder is ``ln_vision`` in LAVIS and the last norm of the encoder in transformers. EVA's ViT
has no bias of keys, which changes no attention; ours has one, of zeros.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch

from .bert_layers import LAYERS, give_words_head, join_projections, split_projections, take_words_head
from .blip import HF_VIT, PARTS, hf_vision_config
from .clip import FIXED_SHAPES
from .clip_settings import IMAGE, as_dict, of_class
from .exporting import Exported, config_json, hold, register_export
from .plain_vit import convert_vit, export_vit, from_tower, is_plain_vit, plain_vit_settings, to_tower
from .renaming import (
    COMPUTED,
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
from .text_settings import norm_eps

#: Theirs and ours, of the MLP of queries.
_LEAD = Names(('.intermediate_query.', '.lead_intermediate.'), ('.output_query.', '.lead_output.'))
#: Of transformers' attention, and BERT's.
_HF_ATTENTION = Names(('attention.attention.', 'attention.self.'))
_HF_EMBEDDINGS = Names(
    ('^qformer.layernorm.', '^embeddings.LayerNorm.'),
    ('^embeddings.word_embeddings.', '^embeddings.word_embeddings.'),
    ('^embeddings.position_embeddings.', '^embeddings.position_embeddings.'),
)
_HF_PARTS = Names(
    ('^vision_projection.', '^heads.itc.image_proj.'),
    ('^text_projection.', '^heads.itc.text_proj.'),
    ('^itm_head.', '^heads.itm.fc.'),
)
_HEADS = r'^heads\.(itc\.(image_proj\.|text_proj\.|temperature$)|itm\.fc\.)'
_OURS = rf'{_HEADS}|^ln_vision\.|^language_(projection|model)\.'
_LANGUAGE_MODEL = 'language_model.model.'
_WORDS = 'embeddings.word_embeddings.weight'
#: LAVIS's names of a language model, by what its projection is named after.
_KINDS = ('opt', 't5')
_HEADS_SETTING = 'num_heads of the Q-Former'
_EPS_SETTING = 'layer_norm_eps of the Q-Former'
_VISION_EPS = 'vision_norm_eps'


def _settings(vision_eps: float) -> tuple[Setting, ...]:
    return (
        Setting(_EPS_SETTING, r'(^|\.)qformer\..*LayerNorm$', norm_eps, (1e-12,)),
        Setting(_VISION_EPS, r'^ln_vision$', norm_eps, (vision_eps,)),
    )


def _lavis_settings(source: Source) -> Iterable[Setting]:
    plain = any_key(source.keys, r'^visual_encoder\.blocks\.')
    return (*_settings(1e-5), *(plain_vit_settings(source) if plain else ()))


# --- into ours --------------------------------------------------------------------------------------------------------


def _take_layers(state: StateDict) -> StateDict:
    """Layers under BERT's names to ours, under the name of our Q-Former."""
    return add_prefix(join_projections(_LEAD.to_ours(LAYERS.to_ours(state))), 'qformer.stack.')


def _take_vision(state: StateDict) -> StateDict:
    """LAVIS's image encoder, EVA's ViT or CLIP's, to our tower."""
    if not any(key.startswith('blocks.') for key in state):
        return {re.sub(r'^transformer\.', '', key): value for key, value in state.items()}
    state = dict(state)
    for key in [key for key in state if key.endswith('.attn.q_bias')]:
        query, value = state.pop(key), state.pop(key.replace('q_bias', 'v_bias'))
        state[key.replace('q_bias', 'qkv.bias')] = torch.cat([query, torch.zeros_like(query), value])
    return convert_vit(state)


def _convert_lavis(state: StateDict, kind: str | None) -> tuple[StateDict, Skipped]:
    state = dict(state)
    converted = add_prefix(_take_vision(pop_prefix(state, r'visual_encoder\.')), 'image_encoder.')
    bert = {k: v for k, v in pop_prefix(state, r'Qformer\.bert\.').items() if not k.endswith(COMPUTED)}
    converted |= add_prefix(take_words_head(state, r'Qformer\.cls\.', bert.get(_WORDS), 'BLIP-2'), 'heads.caption.')
    converted |= _take_layers(bert)
    if 'query_tokens' in state:
        converted['qformer.query_tokens'] = state.pop('query_tokens')
    if kind is not None:
        converted |= add_prefix(pop_prefix(state, rf'{kind}_proj\.'), 'language_projection.')
        converted |= add_prefix(pop_prefix(state, rf'{kind}_model\.'), _LANGUAGE_MODEL)
    state, skipped = hold(PARTS.to_ours(state), _OURS, 'our BLIP-2')
    return {**converted, **state}, skipped


def _is_lavis(keys: set[str], kind: str | None) -> bool:
    found = any_key(keys, r'^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)_query\.')
    return found and [any_key(keys, rf'^{one}_proj\.') for one in _KINDS] == [one == kind for one in _KINDS]


def _register_lavis(name: str, kind: str | None) -> None:
    register_format(name, lambda keys: _is_lavis(keys, kind), settings=_lavis_settings, fixed_shapes=FIXED_SHAPES)(
        lambda state: _convert_lavis(state, kind)
    )
    register_export(name, lambda keys: _fits(keys, kind), wrapper='model', settings=tuple(_lavis_settings(Source(''))))(
        lambda state, settings: _export_lavis(state, kind)
    )


@register_format(
    'EVA ViT',
    lambda keys: (
        any_key(keys, r'^blocks\.\d+\.attn\.q_bias$') and {'cls_token', 'pos_embed', 'patch_embed.proj.bias'} <= keys
    ),
    settings=plain_vit_settings,
    fixed_shapes=FIXED_SHAPES,
)
def convert_eva(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert EVA's image tower alone, from which BLIP-2 starts, without the last block and the last norm."""
    tower = _take_vision(state)
    last = max(int(key.split('.')[1]) for key in tower if key.startswith('resblocks.'))
    kept = rf'^(class_embedding$|positional_embedding$|conv1\.|resblocks\.(?!{last}\.))'
    return keep_matching(tower, kept, 'the last block, or not part of the tower that BLIP-2 uses')


@register_format(
    'Hugging Face BLIP-2',
    lambda keys: any_key(keys, r'^qformer\.encoder\.layer\.\d+\.attention\.attention\.query\.'),
    settings=lambda source: _settings(1e-6),
    fixed_shapes=FIXED_SHAPES,
)
def convert_hf_blip2(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert transformers' models for retrieval and for generation."""
    state = dict(state)
    vision = to_tower(pop_prefix(state, r'vision_model\.'), HF_VIT)
    norm = {
        f'ln_vision.{key}': vision.pop(f'ln_post.{key}') for key in ('weight', 'bias') if f'ln_post.{key}' in vision
    }
    converted = {**add_prefix(vision, 'image_encoder.'), **norm}
    layers = _HF_ATTENTION.to_ours(pop_prefix(state, r'qformer\.(?=encoder\.)'))
    words = {key: state.pop(key) for key in list(state) if key.startswith(('embeddings.', 'qformer.layernorm.'))}
    words = {key: value for key, value in words.items() if not key.endswith(COMPUTED)}
    converted |= _take_layers({**layers, **_HF_EMBEDDINGS.to_ours(words)})
    converted |= add_prefix(pop_prefix(state, r'language_model\.'), _LANGUAGE_MODEL)
    if 'query_tokens' in state:
        converted['qformer.query_tokens'] = state.pop('query_tokens')
    state, skipped = hold(_HF_PARTS.to_ours(state), _OURS, 'our BLIP-2')
    return {**converted, **state}, skipped


# --- out of ours ------------------------------------------------------------------------------------------------------


def _fits(keys: set[str], kind: str | None) -> bool:
    """Whether keys of ours can be written: with a ViT or no image encoder, and the projection of that stage."""
    image = {key.removeprefix('image_encoder.') for key in keys if key.startswith('image_encoder.')}
    stage = any_key(keys, r'^language_projection\.') == (kind is not None)
    own = {any_key(keys, pattern) for pattern in (_MODEL_KEYS[kind],)} if kind and _has_model(keys) else {True}
    vit = not image or any(key.startswith('resblocks.') for key in image)
    return 'qformer.query_tokens' in keys and stage and vit and own == {True}


#: A key of the language models that LAVIS has, by the name of their projection.
_MODEL_KEYS = {'opt': r'^language_model\.model\.model\.decoder\.', 't5': r'^language_model\.model\.encoder\.block\.'}


def _has_model(keys: Iterable[str]) -> bool:
    return any(key.startswith(_LANGUAGE_MODEL) for key in keys)


def _give_layers(state: StateDict) -> StateDict:
    return LAYERS.to_theirs(_LEAD.to_theirs(split_projections(state)))


def _give_vision(state: StateDict) -> tuple[StateDict, bool]:
    """Our tower under LAVIS's names, and whether a bias of keys was left out that is not zero."""
    if not is_plain_vit(state):
        return {
            f'transformer.{key}' if key.startswith('resblocks.') else key: value for key, value in state.items()
        }, False
    theirs, had_bias = {}, False
    for key, value in export_vit(state).items():
        if not key.endswith('.attn.qkv.bias'):
            theirs[key] = value
            continue
        query, of_keys, of_values = value.chunk(3)
        theirs |= {key.replace('qkv.bias', 'q_bias'): query, key.replace('qkv.bias', 'v_bias'): of_values}
        had_bias |= bool(of_keys.any())
    return theirs, had_bias


def _export_lavis(state: StateDict, kind: str | None) -> Exported:
    """Write LAVIS's layout, with those of its heads that the model has."""
    state = dict(state)
    vision, had_bias = _give_vision(pop_prefix(state, r'image_encoder\.'))
    theirs = add_prefix(vision, 'visual_encoder.')
    stack = pop_prefix(state, r'qformer\.stack\.')
    theirs |= add_prefix(_give_layers(stack), 'Qformer.bert.')
    theirs['query_tokens'] = state.pop('qformer.query_tokens')
    if head := pop_prefix(state, r'heads\.caption\.'):
        theirs |= add_prefix(give_words_head(head, stack[_WORDS]), 'Qformer.cls.')
    if kind is not None:
        theirs |= add_prefix(pop_prefix(state, re.escape(_LANGUAGE_MODEL)), f'{kind}_model.')
        theirs |= add_prefix(pop_prefix(state, r'language_projection\.'), f'{kind}_proj.')
    state, left_out = hold(state, _OURS, 'BLIP-2')
    absent = {'Qformer.bert.embeddings.position_ids': 'computed by BLIP-2'}
    notes = ["the bias of keys in attention was left out, as it changes no attention and EVA's ViT has none"] * had_bias
    return Exported({**theirs, **PARTS.to_theirs(state)}, left_out, absent, notes=notes)


for _name, _kind in (('BLIP-2', None), ('BLIP-2 OPT', 'opt'), ('BLIP-2 T5', 't5')):
    _register_lavis(_name, _kind)


_HF_SETTINGS = (
    Setting('num_heads of the image tower', '', of_class(IMAGE, 'num_heads'), ()),
    Setting('norm_eps of the image tower', '', of_class(IMAGE, 'norm_eps'), ()),
    Setting('act of the image tower', '', of_class(IMAGE, 'act'), ()),
    Setting(_HEADS_SETTING, r'(^|\.)qformer\..*attention$', lambda module: getattr(module, 'num_heads', None), ()),
    Setting(_EPS_SETTING, r'(^|\.)qformer\..*LayerNorm$', norm_eps, ()),
)


def _fits_hf(keys: set[str]) -> bool:
    image = {key.removeprefix('image_encoder.') for key in keys if key.startswith('image_encoder.')}
    return 'qformer.query_tokens' in keys and is_plain_vit(image)


@register_export('Hugging Face BLIP-2', _fits_hf, settings=_HF_SETTINGS, model_types=('blip-2',))
def export_hf_blip2(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write transformers' layout with its config; the temperature and the head that writes have no place in it.

    Raises:
        ValueError: the positions are not those of square pictures.
    """
    state = dict(state)
    vision = pop_prefix(state, r'image_encoder\.')
    norm = {f'ln_post.{key}': value for key, value in pop_prefix(state, r'ln_vision\.').items()}
    theirs = add_prefix(from_tower({**vision, **norm}, HF_VIT), 'vision_model.')
    stack = pop_prefix(state, r'qformer\.stack\.')
    words = {key: stack.pop(key) for key in list(stack) if key.startswith('embeddings.')}
    theirs |= add_prefix(_HF_ATTENTION.to_theirs(_give_layers(stack)), 'qformer.')
    theirs |= _HF_EMBEDDINGS.to_theirs(words)
    theirs['query_tokens'] = state.pop('qformer.query_tokens')
    theirs |= add_prefix(pop_prefix(state, re.escape(_LANGUAGE_MODEL)), 'language_model.')
    held = r'^heads\.(itc\.(image_proj|text_proj)\.|itm\.fc\.)|^language_projection\.'
    state, left_out = hold(state, held, 'transformers')
    theirs |= _HF_PARTS.to_theirs(state)
    config, notes = _hf_config(vision, theirs, settings)
    return Exported(theirs, left_out, {}, config, notes)


def _hf_config(vision: StateDict, theirs: StateDict, known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    before, queries = as_dict(known.get('config.json')), theirs['query_tokens']
    vision_config, heads, notes = hf_vision_config(
        'blip_2_vision_model', vision, ('qformer_config', queries.shape[2], _HEADS_SETTING), known
    )
    layers = {int(key.split('.')[3]) for key in theirs if key.startswith('qformer.encoder.layer.')}
    crossing = sorted(
        {int(key.split('.')[3]) for key in theirs if key.startswith('qformer.') and 'crossattention' in key}
    )
    words, positions = (theirs.get(f'embeddings.{name}_embeddings.weight') for name in ('word', 'position'))
    qformer_config = {
        'model_type': 'blip_2_qformer',
        'hidden_size': queries.shape[2],
        'intermediate_size': len(theirs['qformer.encoder.layer.0.intermediate_query.dense.weight']),
        'num_hidden_layers': len(layers),
        'num_attention_heads': heads,
        'cross_attention_frequency': crossing[1] if len(crossing) > 1 else len(layers),
        'encoder_hidden_size': vision_config['hidden_size'],
        'layer_norm_eps': known.get(_EPS_SETTING, 1e-12),
        'use_qformer_text_input': words is not None,
        **({} if words is None else {'vocab_size': len(words), 'max_position_embeddings': len(positions)}),
    }
    projection = theirs.get('vision_projection.weight')
    writes = 'language_projection.weight' in theirs
    if writes and not any(key.startswith('language_model.') for key in theirs):
        notes.append('the language model is not in the file; transformers needs its weights and text_config beside it')
    fixed = {
        'architectures': ['Blip2ForConditionalGeneration' if writes else 'Blip2ForImageTextRetrieval'],
        'model_type': 'blip-2',
        'num_query_tokens': queries.shape[1],
        'vision_config': {**as_dict(before.get('vision_config')), **vision_config},
        'qformer_config': {**as_dict(before.get('qformer_config')), **qformer_config},
        **({} if projection is None else {'image_text_hidden_size': len(projection)}),
    }
    return config_json(known, fixed, {}), notes
