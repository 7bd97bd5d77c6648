"""METER's public checkpoints, which hold a RoBERTa (:mod:`.roberta`).

METER's are PyTorch Lightning's ``state_dict`` of ``METER/meter/modules/meter_module.py``. Its image encoder is Swin,
ours with ``conv_embed=False``, or CLIP's ViT without its last block.
"""

from typing import Any

from .bert_layers import join_projections, split_projections
from .clip import FIXED_SHAPES, convert_vit, export_vit, other_tower
from .exporting import Exported, hold, register_export
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
from .roberta import convert_roberta
from .swin import convert_swin, is_backbone, position_indices, take_swin
from .swin_timm import convert_timm_swin
from .text_settings import meter_settings

_OTHER_TASKS = r'^(nlvr2_classifier|snli_classifier|rank_output|mppd_score|mpfr_score|img_type_embeddings)\.'
_NAMES = Names(
    ('^text_transformer.', '^text_encoder.model.'),
    ('^cross_modal_text_transform.', '^cross_modal.text_transform.'),
    ('^cross_modal_image_transform.', '^cross_modal.image_transform.'),
    ('^cross_modal_text_layers.', '^cross_modal.layers.text_layers.'),
    ('^cross_modal_image_layers.', '^cross_modal.layers.image_layers.'),
    ('^cross_modal_text_pooler.', '^cross_modal.text_pooler.'),
    ('^cross_modal_image_pooler.', '^cross_modal.image_pooler.'),
    ('^mlm_score.', '^heads.mlm.'),
    ('^itm_score.', '^heads.itm.'),
    ('^vqa_classifier.', '^heads.vqa.classifier.'),
)
_OURS = r'^(text_encoder\.model|cross_modal|token_type_embeddings|heads\.(mlm|itm|vqa))\.'
_METRICS = r'^(train|val|dev|test)_\w+\.'


@register_format(
    'METER',
    # BridgeTower has layers of the same names
    lambda k: any_key(k, r'^cross_modal_(text|image)_layers\.') and not any_key(k, r'_link_tower\.'),
    settings=meter_settings,
    fixed_shapes=FIXED_SHAPES,
)
def convert_meter(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert METER with those of its heads that the file has."""
    state, skipped = keep_matching(dict(state), rf'^(?!{_METRICS[1:]})', "a metric's state")
    state, left_out = keep_matching(state, rf'^(?!{_OTHER_TASKS[1:]})', 'a head of a task that is not here')
    skipped.update(left_out)
    image = pop_prefix(state, r'vit_model\.')
    clip = pop_prefix(image, r'visual\.')
    if clip:
        left_out = dict.fromkeys(image, "of CLIP's text part, which METER does not use")
        if reason := other_tower(clip):
            left_out.update({f'visual.{key}': reason for key in clip})
            clip = {}
        image = convert_vit(clip)
    elif any(key.startswith('layers.') for key in image):
        official = any(key.startswith('layers.0.downsample.') for key in image)
        image, left_out = (convert_swin if official else convert_timm_swin)(image)
    else:
        image, left_out = {}, dict.fromkeys(image, "of an image encoder other than Swin or CLIP's ViT")
    skipped.update({f'vit_model.{key}': why for key, why in left_out.items()})
    text, left_out = convert_roberta(pop_prefix(state, r'text_transformer\.'))
    skipped.update({f'text_transformer.{key}': why for key, why in left_out.items()})
    image = add_prefix(image, 'image_encoder.')
    return {**image, **text, **join_projections(_NAMES.to_ours(state))}, skipped


@register_export(
    'METER',
    lambda k: any_key(k, r'^cross_modal\.(text|image)_transform\.'),
    wrapper='state_dict',
    settings=meter_settings(Source('')),
)
def export_meter(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write METER's layout, with those of its heads that the model has.

    Raises:
        ValueError: the image encoder is no Swin or CLIP's ViT, or the text encoder no RoBERTa.
    """
    clip = 'image_encoder.class_embedding' in state
    image = pop_prefix(state, r'image_encoder\.')
    if not (clip or is_backbone(image)) or not any_key(state, r'^text_encoder\.model\.encoder\.layer\.'):
        raise ValueError("METER's public code takes a Swin or CLIP's ViT and a RoBERTa, and this has another encoder")
    absent = {
        'text_transformer.pooler': 'not used by METER',
        'text_transformer.embeddings.position_ids': 'computed by METER',
    }
    if clip:
        image, left_out = add_prefix(export_vit(image), 'visual.'), {}
        absent['vit_model'] = "except for visual, CLIP's text part, which METER does not use"
    else:
        image, left_out = take_swin(image, "METER's Swin", positions=True)
        image |= position_indices(image)
        absent['vit_model.*.attn_mask'] = 'computed by METER, from the size of its pictures'
    left_out = add_prefix(left_out, 'image_encoder.')
    state, more = hold(state, _OURS, 'METER')
    state = _NAMES.to_theirs(split_projections(state))
    return Exported({**add_prefix(image, 'vit_model.'), **state}, left_out | more, absent)
