"""Microsoft's DynamicHead on detectron2 (``dyhead/dyhead.py``, ``extra/atss.py`` and detectron2's FPN)."""

import re
from collections.abc import Iterable
from typing import Any

from .detectors import OFFSETS, center_offset, fit_shapes, is_detector, relu_before_extra_convs
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
    rename,
)
from .resnet_detectron2 import STYLE, convert_resnet, export_resnet, is_detectron2_resnet, is_resnet
from .settings import Setting
from .swin import convert_swin, is_backbone, number_last_norm, position_indices, take_swin

_NAME = 'DyHead'
_COMPUTED = r'(^|\.)(pixel_mean|pixel_std|anchor_generator\..*|cell_anchors\..*)$'
_BACKBONE = 'backbone.backbone.bottom_up.'
_SETTINGS = (OFFSETS, relu_before_extra_convs(True), center_offset(0.5))
_RESNET = r'(^|\.)bottom_up\.res2\.'
_NAMES = Names(
    ('^dyhead_tower.', '^bbox_head.blocks.'),
    ('.DyConv.0.conv.', '.high.'),
    ('.DyConv.1.conv.', '.mid.'),
    ('.DyConv.2.conv.', '.low.'),
    ('.DyConv.0.bn.', '.high.norm.'),
    ('.DyConv.1.bn.', '.mid.norm.'),
    ('.DyConv.2.bn.', '.low.norm.'),
    ('^bbox_head.blocks.#.offset.', '^bbox_head.blocks.#.offset_conv.'),
    ('.AttnConv.1.', '.scale_attn.'),
    ('.relu.fc.0.', '.task_attn.fc1.'),
    ('.relu.fc.2.', '.task_attn.fc2.'),
    ('^head.cls_logits.', '^bbox_head.atss_cls.'),
    ('^head.bbox_pred.', '^bbox_head.atss_reg.'),
    ('^head.centerness.', '^bbox_head.atss_centerness.'),
    ('^head.scales.', '^bbox_head.scales.'),
)


def _settings(source: Source) -> Iterable[Setting]:
    return (*_SETTINGS, STYLE) if any_key(source.keys, _RESNET) else _SETTINGS


@register_format(_NAME, lambda k: any_key(k, r'^(backbone\.)*dyhead_tower\.\d+\.offset\.'), settings=_settings)
def convert_dyhead(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout; a ResNet gets mmdet's names, backbones other than Swin and ResNet are skipped."""
    state, skipped = keep_matching(dict(state), rf'^(?!.*{_COMPUTED})', 'part of the data preprocessor or the anchors')
    backbone = pop_prefix(state, r'(backbone\.)*bottom_up\.')
    if any(key.startswith('layers.') for key in backbone):
        backbone, left_out = convert_swin(backbone)
    elif is_detectron2_resnet(backbone):
        backbone, left_out = convert_resnet(backbone)
    else:
        backbone, left_out = {}, dict.fromkeys(backbone, 'of a backbone other than Swin or ResNet')
    skipped.update(add_prefix(left_out, _BACKBONE))
    levels = [int(m[1]) for key in state if (m := re.search(r'fpn_output(\d)\.', key))]
    first, count = min(levels, default=0), len({*levels})
    state = rename(
        state,
        [
            (r'^(backbone\.)*(?=dyhead_tower|fpn_|top_block)', ''),
            (r'^fpn_lateral(\d)\.', lambda m: f'neck.lateral_convs.{int(m[1]) - first}.conv.'),
            (r'^fpn_output(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - first}.conv.'),
            (r'^top_block\.p(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - 6 + count}.conv.'),
            (r'\.DyConv\.(\d)\.(?=weight$|bias$)', r'.DyConv.\1.conv.'),
        ],
    )
    state = _NAMES.to_ours(state)
    fit_shapes(state)
    return {**add_prefix(backbone, 'backbone.'), **state}, skipped


@register_export(_NAME, is_detector, wrapper='model', settings=_SETTINGS)
def export_dyhead(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout, whose pyramid ends at level 5 of the backbone and has further levels from 6.

    Raises:
        ValueError: the backbone is neither Swin nor ResNet.
    """
    state, left_out = hold(state, r'^(backbone|neck|bbox_head)\.', 'DynamicHead')
    backbone = pop_prefix(state, r'backbone\.')
    if is_resnet(backbone):
        backbone, more = export_resnet(backbone)
    else:
        if backbone and not is_backbone(backbone):
            raise ValueError('its backbone is neither Swin nor ResNet; write a detector with one, or the head alone')
        backbone, more = take_swin(backbone, 'DynamicHead', positions=True, stage_norms=True)
        backbone = number_last_norm({**backbone, **position_indices(backbone)})
    laterals = len({key.split('.')[2] for key in state if key.startswith('neck.lateral_convs.')})
    state = rename(
        _NAMES.to_theirs(state),
        [
            (r'^neck\.lateral_convs\.(\d+)\.conv\.', lambda m: f'backbone.fpn_lateral{int(m[1]) + 6 - laterals}.'),
            (r'^neck\.fpn_convs\.(\d+)\.conv\.', lambda m: _output(int(m[1]) - laterals)),
            (r'^(?=backbone\.|dyhead_tower\.)', 'backbone.'),
        ],
    )
    for key, value in state.items():
        if key.endswith('.AttnConv.1.weight'):
            state[key] = value[..., None, None]
        elif key.endswith('.scale'):
            state[key] = value.reshape(1)
    absent = dict.fromkeys(('pixel_mean', 'pixel_std', 'head.anchor_generator'), 'made by detectron2 from its config')
    left_out |= add_prefix(more, 'backbone.')
    return Exported({**add_prefix(backbone, _BACKBONE), **state}, left_out, absent)


def _output(number: int) -> str:
    """Key of the convolution of an output level: those up to level 5 count to 0, further ones from 0."""
    return f'backbone.fpn_output{6 + number}.' if number < 0 else f'backbone.top_block.p{6 + number}.'
