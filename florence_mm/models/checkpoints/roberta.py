"""RoBERTa of transformers (``models/roberta/modeling_roberta.py``), the text encoder of METER."""

import re
from dataclasses import replace
from typing import Any

from .exporting import Exported, config_json, hold, register_export, require
from .renaming import Skipped, Source, StateDict, any_key, keep_matching, register_format, rename
from .text_settings import head_count, head_setting, roberta_settings

_NAME = 'Hugging Face RoBERTa'
#: What RoBERTa's layers and embeddings hold; relatives of the same names have more, as adapters or norms before.
_TENSORS = (
    r'(embeddings\.(word|position|token_type)_embeddings\.weight|embeddings\.LayerNorm\.(weight|bias)'
    r'|encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|(attention\.)?output\.(dense|LayerNorm)'
    r'|intermediate\.dense)\.(weight|bias))$'
)
_SIZES = (
    'embeddings.word_embeddings.weight',
    'embeddings.position_embeddings.weight',
    'embeddings.token_type_embeddings.weight',
    'encoder.layer.0.intermediate.dense.weight',
)
_EPS = replace(*roberta_settings(Source('')), accepted=())
_OURS = r'^(text_encoder\.)?model\.'


@register_format(
    _NAME,
    lambda k: any_key(k, r'^(roberta\.)?encoder\.layer\.\d+\.attention\.self\.query\.'),
    settings=roberta_settings,
)
def convert_roberta(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a ``RobertaModel``, alone or inside one of transformers' models with a head."""
    kinds = next(
        (value for key, value in state.items() if key.endswith('embeddings.token_type_embeddings.weight')), None
    )
    if kinds is not None and len(kinds) != 1:
        raise ValueError(
            f'its text encoder has {len(kinds)} token types, as BERT, whose positions are counted otherwise; give a '
            'RoBERTa, which has one; a BERT is read from a file whose keys begin with bert.'
        )
    state, skipped = keep_matching(
        state, r'^(roberta\.)?(embeddings|encoder)\.', 'of the pooler or a head, which METER does not take over'
    )
    if other := next((key for key in state if not re.match(rf'(roberta\.)?{_TENSORS}', key)), None):
        raise ValueError(f'its text encoder has {other}, which RoBERTa lacks: it is of another model; give a RoBERTa')
    return rename(state, [(r'^(roberta\.)?', 'text_encoder.model.')]), skipped


@register_export(
    _NAME,
    lambda k: any_key(k, _OURS + r'encoder\.layer\.\d+\.attention\.self\.query\.'),
    settings=[_EPS, head_setting(r'(^|\.)attention\.self$', 'num_attention_heads')],
    model_types=('roberta',),
)
def export_roberta(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write a ``RobertaModel``, with its ``config.json``."""
    state, left_out = hold(state, _OURS, 'RoBERTa')
    state = rename(state, [(_OURS, '')])
    require(state, *_SIZES)
    words, positions, kinds, hidden = (state[key] for key in _SIZES)
    heads, notes = head_count(settings, words.shape[1])
    fixed = {
        'architectures': ['RobertaModel'],
        'model_type': 'roberta',
        'vocab_size': len(words),
        'hidden_size': words.shape[1],
        'max_position_embeddings': len(positions),
        'type_vocab_size': len(kinds),
        'num_hidden_layers': len({key.split('.')[2] for key in state if key.startswith('encoder.layer.')}),
        'num_attention_heads': heads,
        'intermediate_size': len(hidden),
        'layer_norm_eps': settings.get(_EPS.argument, 1e-5),
    }
    absent = {'pooler': 'made anew by RobertaModel unless add_pooling_layer=False'}
    return Exported(state, left_out, absent, config_json(settings, fixed, {'hidden_act': 'gelu'}), notes)
