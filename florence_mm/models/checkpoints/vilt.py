"""ViLT's public checkpoints, in the layout of its code and in that of transformers, to our names and back.

Sources of the layouts: ViLT ``vilt/modules/vilt_module.py`` and ``vilt/modules/heads.py``; transformers
``models/vilt/modeling_vilt.py``. Our heads are named ``mlm``, ``itm``, ``vqa`` and ``ranking``. The output layer of the
words is tied to the word embeddings unless its weights differ from them.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .bert_layers import join_projections, split_projections
from .exporting import CONFIG, Exported, config_json, hold, register_export, require
from .plain_vit import convert_vit, export_vit
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format
from .settings import Setting, read_config
from .text_modes import same
from .text_settings import HEAD_WIDTH, head_count, norm_eps

_WORDS, _OUTPUT = 'text_embeddings.word_embeddings.weight', 'heads.mlm.decoder.weight'
_TIED = 'the word embeddings, to which the head is tied'
#: Parts with the same names in both layouts, theirs and ours.
_HEADS = (
    ('^mlm_score.', '^heads.mlm.'),
    ('^itm_score.fc.', '^heads.itm.fc.'),
    ('^rank_output.weight$', '^heads.ranking.fc.weight$'),
    ('^rank_output.bias$', '^heads.ranking.bias$'),
)
_NAMES = Names(*_HEADS, ('^vqa_classifier.', '^heads.vqa.classifier.'), ('^pooler.dense.', '^pooler.'))
_HF_NAMES = Names(
    *_HEADS,
    ('^heads.mlm.decoder.bias$', '^heads.mlm.bias$'),
    ('^classifier.', '^heads.vqa.classifier.'),
    ('^vilt.pooler.dense.', '^pooler.'),
    ('^vilt.embeddings.text_embeddings.', '^text_embeddings.'),
    ('^vilt.embeddings.token_type_embeddings.', '^token_type_embeddings.'),
    ('^vilt.embeddings.cls_token$', '^transformer.cls_token$'),
    ('^vilt.embeddings.position_embeddings$', '^transformer.pos_embed$'),
    ('^vilt.embeddings.patch_embeddings.projection.', '^transformer.patch_embed.proj.'),
    ('^vilt.encoder.layer.#.layernorm_before.', '^transformer.blocks.#.norm1.'),
    ('^vilt.encoder.layer.#.layernorm_after.', '^transformer.blocks.#.norm2.'),
    ('^vilt.encoder.layer.#.attention.output.dense.', '^transformer.blocks.#.attn.proj.'),
    ('^vilt.encoder.layer.#.attention.qkv.', '^transformer.blocks.#.attn.qkv.'),
    ('^vilt.encoder.layer.#.intermediate.dense.', '^transformer.blocks.#.mlp.fc1.'),
    ('^vilt.encoder.layer.#.output.dense.', '^transformer.blocks.#.mlp.fc2.'),
    ('^vilt.layernorm.', '^transformer.norm.'),
)
_HF_ATTENTION = Names(('^vilt.encoder.layer.#.attention.attention.', '^vilt.encoder.layer.#.attention.self.'))
_OURS = (
    r'^(text_embeddings\.|token_type_embeddings\.|pooler\.|transformer\.|heads\.(mlm\.(transform|decoder)\.|mlm\.bias$'
    r'|itm\.fc\.|ranking\.(fc\.|bias$)|vqa\.classifier\.))'
)
_OPTIONAL = {r'^heads\.mlm\.decoder\.': 'tied=False of the head mlm'}
_FIXED = {r'^transformer\.conv1\.weight$': 'patch_size of ViLT', r'^token_type_embeddings\.': 'a model of two images'}
_BLOCKS, _TEXT = r'^transformer\.(resblocks\.\d+\.ln_\d|ln_post)$', r'^text_embeddings\.LayerNorm$'
_EPS, _TEXT_EPS, _HEAD = 'layer_norm_eps', 'layer_norm_eps of the text', 'hidden_size / num_heads'


# --- settings ---------------------------------------------------------------------------------------------------------


def _width_of_heads(module: nn.Module) -> int | None:
    """Channels of a head of a pre-norm block; None for one too narrow to be of a released model."""
    weight = getattr(module, 'in_proj_weight', None)
    return None if weight is None or weight.shape[1] < HEAD_WIDTH else weight.shape[1] // module.num_heads


def _settings(eps: float, text_eps: float, width: int) -> Iterable[Setting]:
    yield Setting(_EPS, _BLOCKS, norm_eps, (eps,))
    yield Setting(_TEXT_EPS, _TEXT, norm_eps, (text_eps,))
    yield Setting(_HEAD, r'^transformer\.resblocks\.\d+\.attn$', _width_of_heads, (width,))


def vilt_settings(source: Source) -> Iterable[Setting]:
    """Settings of ViLT's code, which are in it and in no file."""
    return tuple(_settings(1e-6, 1e-12, HEAD_WIDTH))


def hf_vilt_settings(source: Source) -> Iterable[Setting]:
    """Settings of transformers' ViLT, as the ``config.json`` beside the weights says; without one its defaults.

    Raises:
        ValueError: the config is that of a model that ours is not.
    """
    config = {} if '://' in str(source.path) else read_config(Path(source.path).expanduser().parent / CONFIG)
    config = config if config.get('model_type') == 'vilt' else {}
    if (act := config.get('hidden_act', 'gelu')) != 'gelu':
        raise ValueError(f'the config beside {source.path} says hidden_act {act!r}, which ViLT does not have')
    eps = config.get('layer_norm_eps', 1e-12)
    return tuple(_settings(eps, eps, config.get('hidden_size', 768) // config.get('num_attention_heads', 12)))


#: What its config.json tells.
_HF_SETTINGS = (
    *(replace(setting, accepted=()) for setting in _settings(1e-12, 1e-12, HEAD_WIDTH) if setting.argument != _HEAD),
    Setting('num_heads', r'^transformer\.resblocks\.0\.attn$', lambda module: getattr(module, 'num_heads', None), ()),
)


# --- to our names -----------------------------------------------------------------------------------------------------


@register_format(
    'ViLT',
    lambda keys: any_key(keys, r'^transformer\.blocks\.\d+\.attn\.qkv\.') and _WORDS in keys,
    settings=vilt_settings,
    optional_parts=_OPTIONAL,
    fixed_shapes=_FIXED,
)
def convert_vilt(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert ViLT as its own code writes it."""
    return _to_ours(_NAMES.to_ours(state), 'mlm_score.decoder.weight')


@register_format(
    'Hugging Face ViLT',
    lambda keys: any_key(keys, r'^vilt\.encoder\.layer\.\d+\.attention\.attention\.query\.'),
    settings=hf_vilt_settings,
    optional_parts=_OPTIONAL,
    fixed_shapes=_FIXED,
)
def convert_hf_vilt(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert transformers' models for masked words, questions and retrieval."""
    state = join_projections(_HF_ATTENTION.to_ours(state))
    return _to_ours(_HF_NAMES.to_ours(state), 'mlm_score.decoder.weight')


def _to_ours(state: StateDict, output: str) -> tuple[StateDict, Skipped]:
    """Convert the transformer, and leave the output layer out if it is the word embeddings."""
    require(state, _WORDS)
    transformer, skipped = convert_vit(pop_prefix(state, r'transformer\.')), {}
    state = {**state, **add_prefix(transformer, 'transformer.')}
    if same(state.get(_OUTPUT), state[_WORDS]):
        del state[_OUTPUT]
        skipped[output] = _TIED
    kept, left_out = hold(state, _OURS, 'our ViLT')
    return kept, {**left_out, **skipped}


# --- out of ours ------------------------------------------------------------------------------------------------------


def _is_vilt(keys: Collection[str]) -> bool:
    return any_key(keys, r'^transformer\.resblocks\.\d+\.attn\.in_proj_weight$') and _WORDS in keys


def _to_theirs(state: StateDict) -> tuple[StateDict, Skipped]:
    """Check that a model is ViLT's, and give its transformer the names of a plain ViT.

    Raises:
        ValueError: its patches are those of a backbone's map.
    """
    if any_key(state, r'^image_encoder\.'):
        raise ValueError("its patches are those of a backbone's map, and ViLT's are those of pictures")
    kept, left_out = hold(state, _OURS, 'ViLT')
    kept |= add_prefix(export_vit(pop_prefix(kept, r'transformer\.')), 'transformer.')
    if 'heads.mlm.bias' in kept:
        kept.setdefault(_OUTPUT, kept[_WORDS])
    return kept, left_out


@register_export('ViLT', _is_vilt, wrapper='state_dict', settings=vilt_settings(Source('')))
def export_vilt(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write ViLT as its own code reads it.

    Raises:
        ValueError: its patches are those of a backbone's map.
    """
    kept, left_out = _to_theirs(state)
    return Exported(_NAMES.to_theirs(kept), left_out, {'text_embeddings.position_ids': 'computed by ViLT'})


@register_export('Hugging Face ViLT', _is_vilt, settings=_HF_SETTINGS, model_types=('vilt',))
def export_hf_vilt(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write transformers' ViLT with its config; it has no place for the matching head.

    Another epsilon of the norms of texts, for which it has no place either, is a note.

    Raises:
        ValueError: its patches are those of a backbone's map.
    """
    kept, left_out = _to_theirs(state)
    for key in [key for key in kept if key.startswith('heads.itm.')]:
        left_out[key] = 'transformers has no place for it'
        del kept[key]
    config, notes = _config(kept, settings)
    theirs = _HF_ATTENTION.to_theirs(split_projections(_HF_NAMES.to_theirs(kept)))
    return Exported(theirs, left_out, {}, config, notes)


def _config(kept: StateDict, known: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    words, patches = kept[_WORDS], kept['transformer.patch_embed.proj.weight']
    side = math.isqrt(kept['transformer.pos_embed'].shape[1] - 1)
    heads, notes = head_count(known, words.shape[1], 'transformer')
    asks = 'heads.vqa.classifier.0.weight' in kept
    kind = 'QuestionAnswering' if asks else 'ImageAndTextRetrieval' if 'heads.ranking.fc.weight' in kept else 'MaskedLM'
    fixed = {
        'architectures': [f'ViltFor{kind}'],
        'model_type': 'vilt',
        'vocab_size': len(words),
        'hidden_size': words.shape[1],
        'intermediate_size': len(kept['transformer.blocks.0.mlp.fc1.weight']),
        'num_hidden_layers': len({key.split('.')[2] for key in kept if key.startswith('transformer.blocks.')}),
        'num_attention_heads': heads,
        'max_position_embeddings': len(kept['text_embeddings.position_embeddings.weight']),
        'type_vocab_size': len(kept['text_embeddings.token_type_embeddings.weight']),
        'modality_type_vocab_size': len(kept['token_type_embeddings.weight']),
        'patch_size': patches.shape[-1],
        'image_size': side * patches.shape[-1],
        'tie_word_embeddings': _OUTPUT not in kept or torch.equal(kept[_OUTPUT], words),
    }
    config = config_json(known, fixed, {'hidden_act': 'gelu', 'layer_norm_eps': 1e-12, 'max_image_length': -1})
    eps = config['layer_norm_eps'] = known.get(_EPS, config['layer_norm_eps'])
    if (text_eps := known.get(_TEXT_EPS, eps)) != eps:
        notes.append(
            f'transformers computes the norm of the text embeddings with {eps}, and this model with {text_eps}'
        )
    return config, notes
