"""Conversion of ATSS detectors with Dynamic Head to ``backbone.*``, ``neck.*`` (mmdet's FPN) and ``bbox_head.*``.

Sources of the layouts: DynamicHead ``dyhead/dyhead.py`` and ``extra/atss.py`` on detectron2's FPN; mmdet
``necks/dyhead.py`` and ``dense_heads/atss_head.py``. Public weights of both need ``offset_mode='legacy'``. Those of
detectron2 also need a neck with ``relu_before_extra_convs=True`` (P7), those of mmdet's released DyHead configs not.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .renaming import Skipped, Source, StateDict, any_key, keep_matching, pop_prefix, register_format, rename
from .settings import Setting
from .swin import convert_mm_swin, convert_swin

_COMPUTED = r'(^|\.)(pixel_mean|pixel_std|anchor_generator\..*|cell_anchors\..*)$'


def _prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def _fit_shapes(state: StateDict) -> None:
    """Reshape weights of 1x1 convolutions to linear layers and scale factors of levels to scalars, in place."""
    for key, value in state.items():
        if re.search(r'\.(scale_attn|task_attn\.fc[12])\.weight$', key) and value.ndim == 4:
            state[key] = value.flatten(1)  # (D, C, 1, 1) to (D, C)
        elif key.endswith('.scale') and value.numel() == 1:
            state[key] = value.reshape(())


def _center_offset(head: nn.Module) -> Any:
    return getattr(getattr(head, 'prior_generator', None), 'center_offset', None)


_OFFSETS = Setting('offset_mode', r'(^|\.)blocks\.\d+$', lambda m: getattr(m, 'offset_mode', None), ('legacy',))


def _detectron2_settings(source: Source) -> Iterable[Setting]:
    relu = 'relu_before_extra_convs'
    return (
        _OFFSETS,
        Setting(f'{relu} of the neck', r'(^|\.)neck$', lambda m: getattr(m, relu, None), (True,)),
        Setting('center_offset of the anchors', r'(^|\.)bbox_head$', _center_offset, (0.5,)),
    )


def _mmdet_settings(source: Source) -> Iterable[Setting]:
    """The neck and the anchors as in the config that mmdet saves in ``meta``, or open without it."""
    config = str(source.meta.get('config') or source.meta.get('cfg') or '')
    relu, centers = (False, True), (0.5, 0)
    if 'dyhead' in config.lower():
        relu = (bool(re.search(r'relu_before_extra_convs\W{1,4}True', config)),)
        found = re.search(r'center_offset\W{1,4}([\d.]+\d)', config)
        centers = (float(found[1]) if found else 0,)
    return (
        _OFFSETS,
        Setting(
            'relu_before_extra_convs of the neck',
            r'(^|\.)neck$',
            lambda m: getattr(m, 'relu_before_extra_convs', None),
            relu,
            "False in mmdet's released DyHead configs",
        ),
        Setting(
            'center_offset of the anchors',
            r'(^|\.)bbox_head$',
            _center_offset,
            centers,
            "0 in mmdet's atss_r50_fpn_dyhead_1x_coco, 0.5 in its others",
        ),
    )


@register_format(
    'DyHead', lambda k: any_key(k, r'^(backbone\.)*dyhead_tower\.\d+\.offset\.'), settings=_detectron2_settings
)
def convert_dyhead(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert Microsoft's DynamicHead on detectron2; backbones other than Swin are skipped."""
    state, skipped = keep_matching(dict(state), rf'^(?!.*{_COMPUTED})', 'part of the data preprocessor or the anchors')
    backbone = pop_prefix(state, r'(backbone\.)*bottom_up\.')
    if any(key.startswith('layers.') for key in backbone):
        backbone, left_out = convert_swin(backbone)
    else:
        backbone, left_out = {}, dict.fromkeys(backbone, 'of a backbone other than Swin')
    skipped.update(_prefixed(left_out, 'backbone.backbone.bottom_up.'))
    levels = [int(m[1]) for key in state if (m := re.search(r'fpn_output(\d)\.', key))]
    first, count = min(levels, default=0), len({*levels})
    state = rename(
        state,
        [
            (r'^(backbone\.)*(?=dyhead_tower|fpn_|top_block)', ''),
            (r'^fpn_lateral(\d)\.', lambda m: f'neck.lateral_convs.{int(m[1]) - first}.conv.'),
            (r'^fpn_output(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - first}.conv.'),
            (r'^top_block\.p(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - 6 + count}.conv.'),
            (r'^dyhead_tower\.', 'bbox_head.blocks.'),
            (r'\.DyConv\.(\d)\.(conv\.)?', lambda m: f'.{("high", "mid", "low")[int(m[1])]}.'),
            (r'\.(high|mid|low)\.bn\.', r'.\1.norm.'),
            (r'^(bbox_head\.blocks\.\d+)\.offset\.', r'\1.offset_conv.'),
            (r'\.AttnConv\.1\.', '.scale_attn.'),
            (r'\.relu\.fc\.0\.', '.task_attn.fc1.'),
            (r'\.relu\.fc\.2\.', '.task_attn.fc2.'),
            (r'^head\.cls_logits\.', 'bbox_head.atss_cls.'),
            (r'^head\.bbox_pred\.', 'bbox_head.atss_reg.'),
            (r'^head\.centerness\.', 'bbox_head.atss_centerness.'),
            (r'^head\.scales\.', 'bbox_head.scales.'),
        ],
    )
    _fit_shapes(state)
    return {**_prefixed(backbone, 'backbone.'), **state}, skipped


@register_format(
    'mmdet DyHead',
    lambda k: any_key(k, r'^(neck\.)?(\d+\.)?dyhead_blocks\.\d+\.spatial_conv_offset\.'),
    settings=_mmdet_settings,
)
def convert_mmdet_dyhead(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert mmdet's ATSS with FPN and DyHead necks; a Swin backbone gets our names, others keep mmdet's.

    mmdet's deformable convolutions have no bias; ours get a bias of zeros, which computes the same.
    """
    state = dict(state)
    backbone, skipped = pop_prefix(state, r'backbone\.'), {}
    if any('.w_msa.' in key for key in backbone):
        backbone, left_out = convert_mm_swin(backbone)
        skipped = _prefixed(left_out, 'backbone.')
    state = rename(
        state,
        [
            (r'^(neck\.)?(\d+\.)?dyhead_blocks\.', 'bbox_head.blocks.'),
            (r'^neck\.\d+\.', 'neck.'),
            (r'\.spatial_conv_offset\.', '.offset_conv.'),
            (r'\.spatial_conv_(high|mid|low)\.(conv\.)?', r'.\1.'),
            (r'\.scale_attn_module\.1\.', '.scale_attn.'),
            (r'\.task_attn_module\.conv([12])\.conv\.', r'.task_attn.fc\1.'),
        ],
    )
    for key in [key for key in state if re.search(r'^bbox_head\.blocks\.\d+\.(high|mid|low)\.weight$', key)]:
        state.setdefault(key.replace('weight', 'bias'), torch.zeros(len(state[key]), dtype=state[key].dtype))
    _fit_shapes(state)
    return {**_prefixed(backbone, 'backbone.'), **state}, skipped
