"""Conversion of METER's public checkpoints and Hugging Face's RoBERTa to our names.

METER's are PyTorch Lightning's ``state_dict`` of ``METER/meter/modules/meter_module.py``. Its image encoder is Swin,
converted to ours (CoSwin with ``conv_embed=False``), or CLIP's, which is skipped and reported.
"""

import re

import torch

from .renaming import Skipped, StateDict, any_key, keep_matching, pop_prefix, register_format, rename
from .swin import convert_swin, convert_timm_swin
from .text_settings import meter_settings, roberta_settings

_OTHER_TASKS = r'^(nlvr2_classifier|snli_classifier|rank_output|mppd_score|mpfr_score|img_type_embeddings)\.'
#: What RoBERTa's layers and embeddings hold; relatives of the same names have more, as adapters or norms before.
_ROBERTA = (
    r'(embeddings\.(word|position|token_type)_embeddings\.weight|embeddings\.LayerNorm\.(weight|bias)'
    r'|encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|(attention\.)?output\.(dense|LayerNorm)'
    r'|intermediate\.dense)\.(weight|bias))$'
)
_METRICS = r'^(train|val|dev|test)_\w+\.'


def join_projections(state: StateDict) -> StateDict:
    """Concatenate BERT's separate query, key and value projections as in our co-attention layers.

    ``attention.self.{query,key,value}`` become ``attention.qkv``, ``crossattention.self.query`` becomes
    ``crossattention.query`` and ``crossattention.self.{key,value}`` become ``crossattention.key_value``.
    """
    joined = {}
    for key, value in state.items():
        match = re.match(r'(.*\.|)(attention|crossattention)\.self\.(query|key|value)\.(weight|bias)$', key)
        if not match:
            joined[key] = value
            continue
        layer, kind, name, what = match.groups()
        names, ours = (('query', 'key', 'value'), 'qkv') if kind == 'attention' else (('key', 'value'), 'key_value')
        if name not in names:
            joined[f'{layer}{kind}.query.{what}'] = value
        elif name == names[0]:
            parts = [state.get(f'{layer}{kind}.self.{part}.{what}') for part in names]
            if any(part is None for part in parts):
                raise ValueError(f'the checkpoint has {key} and not all of {", ".join(names)}; it is incomplete')
            joined[f'{layer}{kind}.{ours}.{what}'] = torch.cat(parts)
    return joined


@register_format(
    'METER',
    # BridgeTower has layers of the same names
    lambda k: any_key(k, r'^cross_modal_(text|image)_layers\.') and not any_key(k, r'_link_tower\.'),
    settings=meter_settings,
)
def convert_meter(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert METER with those of its heads that the file has."""
    state, skipped = keep_matching(dict(state), rf'^(?!{_METRICS[1:]})', "a metric's state")
    state, left_out = keep_matching(state, rf'^(?!{_OTHER_TASKS[1:]})', 'a head of a task that is not here')
    skipped.update(left_out)
    image = pop_prefix(state, r'vit_model\.')
    if any(key.startswith('layers.') for key in image):
        official = any(key.startswith('layers.0.downsample.') for key in image)
        image, left_out = (convert_swin if official else convert_timm_swin)(image)
    else:
        image, left_out = {}, dict.fromkeys(image, 'of an image encoder other than Swin')
    skipped.update({f'vit_model.{key}': why for key, why in left_out.items()})
    text, left_out = convert_roberta(pop_prefix(state, r'text_transformer\.'))
    skipped.update({f'text_transformer.{key}': why for key, why in left_out.items()})
    state = rename(
        state,
        [
            (r'^cross_modal_(text|image)_transform\.', r'cross_modal.\1_transform.'),
            (r'^cross_modal_(text|image)_layers\.', r'cross_modal.layers.\1_layers.'),
            (r'^cross_modal_(text|image)_pooler\.', r'cross_modal.\1_pooler.'),
            (r'^mlm_score\.', 'heads.mlm.'),
            (r'^itm_score\.', 'heads.itm.'),
            (r'^vqa_classifier\.', 'heads.vqa.classifier.'),
        ],
    )
    image = {f'image_encoder.{key}': value for key, value in image.items()}
    return {**image, **text, **join_projections(state)}, skipped


@register_format(
    'Hugging Face RoBERTa',
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
            'RoBERTa, which has one'
        )
    state, skipped = keep_matching(
        state, r'^(roberta\.)?(embeddings|encoder)\.', 'of the pooler or a head, which METER does not take over'
    )
    if other := next((key for key in state if not re.match(rf'(roberta\.)?{_ROBERTA}', key)), None):
        raise ValueError(f'its text encoder has {other}, which RoBERTa lacks: it is of another model; give a RoBERTa')
    return rename(state, [(r'^(roberta\.)?', 'text_encoder.model.')]), skipped
