"""BERT (transformers ``models/bert/modeling_bert.py``), from whose weights BLIP's text model starts.

Files have ``bert.`` before the keys of the model and ``cls.`` before those of its heads, and older ones, as
``bert-base-uncased``, call weight and bias of norms ``gamma`` and ``beta``.
"""

import re
from collections.abc import Iterable

from torch import nn

from .bert_layers import LAYERS, WORDS_HEAD, join_projections
from .renaming import Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format, rename
from .settings import Setting
from .text_modes import as_causal

_NORMS = [(r'LayerNorm\.gamma$', 'LayerNorm.weight'), (r'LayerNorm\.beta$', 'LayerNorm.bias')]
_KINDS = 'embeddings.token_type_embeddings.weight'
_NO_PART = 'of a pooler or of a head for pairs of sentences, which our models do not have'
_HEAD_WIDTH = 64


def _eps(module: nn.Module) -> float | None:
    return getattr(module, 'eps', None)


def _head_width(module: nn.Module) -> int | None:
    """Channels of a head of self-attention; None for a stack too narrow to be a released one."""
    width = getattr(getattr(module, 'qkv', None), 'in_features', 0)
    return width // module.num_heads if width >= _HEAD_WIDTH else None


def bert_settings(source: Source) -> Iterable[Setting]:
    """Settings of BERT, of all its sizes."""
    return (
        Setting('layer_norm_eps', r'(^|\.)LayerNorm$', _eps, (1e-12,)),
        Setting('hidden_size / num_heads', r'(^|\.)layers\.\d+\.attention$', _head_width, (_HEAD_WIDTH,)),
    )


@register_format(
    'Hugging Face BERT',
    lambda keys: (
        any_key(keys, r'^bert\.encoder\.layer\.\d+\.attention\.self\.query\.')
        and f'bert.{_KINDS}' in keys
        and not any_key(keys, r'crossattention|adapter|query_global|^bert\.encoder\.layer\.\d+\.attention\.LayerNorm\.')
    ),
    settings=bert_settings,
    more_rows=r'(^|\.)word_embeddings\.weight$|^(heads\.\w+\.)?bias$',
)
def convert_bert(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert BERT to the text model of BLIP, with the head that predicts words as the head ``caption``.

    Each of its two self-attentions is BERT's. Cross-attention is not in the file.
    """
    state, skipped = rename(state, _NORMS), {}
    text = join_projections(LAYERS.to_ours(pop_prefix(state, r'bert\.')))
    head = WORDS_HEAD.to_ours(pop_prefix(state, r'cls\.(?=predictions\.)'))
    for key in ('predictions.decoder.weight', 'predictions.decoder.bias'):
        if head.pop(key, None) is not None:
            skipped[f'cls.{key}'] = 'tied to the word embeddings'
    skipped |= {f'bert.{key}': _NO_PART for key in text if key.startswith('pooler.')} | dict.fromkeys(state, _NO_PART)
    text = {key: value for key, value in text.items() if not key.startswith('pooler.')}
    if other := next((key for key in text if not re.match(r'(embeddings|layers)\.', key)), None):
        raise ValueError(f'its text model has {other}, which BERT lacks: it is of another model; give a BERT')
    return {**add_prefix({**text, **as_causal(text)}, 'text_encoder.'), **add_prefix(head, 'heads.caption.')}, skipped
