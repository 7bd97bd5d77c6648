"""UNITER's public checkpoints to our names and back.

Source of the layout: UNITER ``model/model.py``, ``model/pretrain.py``, ``model/vqa.py``. Our heads are named ``mlm``,
``itm``, ``mrfr``, ``mrc`` and ``vqa``. Files repeat two matrices: the word embeddings as the output layer of words, and
the projection of features as that of regressed features.
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch

from .bert import bert_settings
from .bert_layers import join_projections, split_projections
from .exporting import Exported, hold, register_export, require
from .renaming import COMPUTED, Names, Skipped, Source, StateDict, any_key, register_format
from .settings import Setting
from .text_modes import same

_WORDS, _PROJECTION = 'text_stack.embeddings.word_embeddings.weight', 'region_embeddings.img_linear.weight'
_MASK = 'region_embeddings.mask_embedding'
_NAMES = Names(
    ('^uniter.embeddings.', '^text_stack.embeddings.'),
    ('^uniter.encoder.layer.', '^text_stack.layers.'),
    ('^uniter.img_embeddings.', '^region_embeddings.'),
    (f'^{_MASK}.weight$', f'^{_MASK}$'),
    ('^uniter.pooler.dense.', '^pooler.'),
    ('^cls.predictions.', '^heads.mlm.'),
    ('^itm_output.', '^heads.itm.fc.'),
    ('^feat_regress.', '^heads.mrfr.'),
    ('^region_classifier.', '^heads.mrc.'),
    ('^vqa_output.', '^heads.vqa.classifier.'),
)
_OURS = (
    r'^(text_stack\.(embeddings|layers)\.|region_embeddings\.|pooler\.|heads\.(mlm\.(transform|decoder)\.|mlm\.bias$'
    r'|itm\.fc\.|mrfr\.(net\.|bias$)|mrc\.net\.|vqa\.classifier\.))'
)
#: Tensors that repeat others: theirs, the head's name of it, and what it repeats.
_REPEATED = (
    ('cls.predictions.decoder.weight', 'heads.mlm.decoder.weight', 'heads.mlm.bias', _WORDS),
    ('feat_regress.weight', 'heads.mrfr.weight', 'heads.mrfr.bias', _PROJECTION),
)


def uniter_settings(source: Source) -> Iterable[Setting]:
    """Settings of UNITER, which are BERT's."""
    return bert_settings(source)


@register_format(
    'UNITER',
    lambda keys: any_key(keys, r'^uniter\.encoder\.layer\.\d+\.attention\.self\.query\.'),
    settings=uniter_settings,
)
def convert_uniter(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert UNITER of pretraining, or fine-tuned on questions.

    Raises:
        ValueError: a matrix that repeats another differs from it, or a part is missing.
    """
    state = {key: value for key, value in state.items() if not key.endswith(COMPUTED)}
    state, skipped = join_projections(_NAMES.to_ours(state)), {}
    require(state, _WORDS, _PROJECTION, _MASK)
    for theirs, ours, _, source in _REPEATED:
        if ours in state:
            if not same(state.pop(ours), state[source]):
                raise ValueError(f'its {theirs} is not tied to {source}, as it is in UNITER; give a whole checkpoint')
            skipped[theirs] = f'tied to {source}'
    if state[_MASK].shape[0] != 2 or state[_MASK][0].any():
        raise ValueError(
            f'its mask embedding is {tuple(state[_MASK].shape)}; expected a row of zeros and the mask vector'
        )
    state[_MASK] = state[_MASK][1].clone()
    kept, left_out = hold(state, _OURS, 'our UNITER')
    return kept, {**left_out, **skipped}


def _is_uniter(keys: Collection[str]) -> bool:
    return {_WORDS, _PROJECTION, _MASK} <= set(keys)


@register_export('UNITER', _is_uniter, settings=uniter_settings(Source('')))
def export_uniter(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write UNITER as its own code reads it.

    Raises:
        ValueError: the head of words has weights of its own.
    """
    kept, left_out = hold(state, _OURS, 'UNITER')
    if 'heads.mlm.decoder.weight' in kept:
        raise ValueError("its head of words has weights of its own, and UNITER's is tied to the word embeddings")
    for _, ours, bias, source in _REPEATED:
        if bias in kept:
            kept[ours] = kept[source]
    kept[_MASK] = torch.stack([torch.zeros_like(kept[_MASK]), kept[_MASK]])
    absent = {'uniter.embeddings.position_ids': 'computed by UNITER'}
    return Exported(_NAMES.to_theirs(split_projections(kept)), left_out, absent)
