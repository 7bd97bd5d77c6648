"""ATSS with the necks FPN and DyHead of mmdet (``necks/dyhead.py``, ``dense_heads/atss_head.py``)."""

import re
from collections.abc import Iterable
from typing import Any

import torch

from .detectors import OFFSETS, center_offset, fit_shapes, is_detector, relu_before_extra_convs
from .exporting import Exported, hold, register_export
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format, rename
from .settings import Setting
from .swin import is_backbone
from .swin_mm import convert_mm_swin, export_mm_swin

_NAME = 'mmdet DyHead'
_BIAS = r'^bbox_head\.blocks\.\d+\.(high|mid|low)\.bias$'
_NAMES = Names(
    ('^neck.1.dyhead_blocks.', '^bbox_head.blocks.'),
    ('^neck.0.', '^neck.'),
    ('.spatial_conv_offset.', '.offset_conv.'),
    ('.spatial_conv_high.conv.', '.high.'),
    ('.spatial_conv_mid.conv.', '.mid.'),
    ('.spatial_conv_low.conv.', '.low.'),
    ('.spatial_conv_high.norm.', '.high.norm.'),
    ('.spatial_conv_mid.norm.', '.mid.norm.'),
    ('.spatial_conv_low.norm.', '.low.norm.'),
    ('.scale_attn_module.1.', '.scale_attn.'),
    ('.task_attn_module.conv1.conv.', '.task_attn.fc1.'),
    ('.task_attn_module.conv2.conv.', '.task_attn.fc2.'),
)


def _settings(source: Source) -> Iterable[Setting]:
    """The neck and the anchors as in the config that mmdet saves in ``meta``, or open without it."""
    config = str(source.meta.get('config') or source.meta.get('cfg') or '')
    relu, centers = (False, True), (0.5, 0)
    if 'dyhead' in config.lower():
        relu = (bool(re.search(r'relu_before_extra_convs\W{1,4}True', config)),)
        found = re.search(r'center_offset\W{1,4}([\d.]+\d)', config)
        centers = (float(found[1]) if found else 0,)
    return (
        OFFSETS,
        relu_before_extra_convs(*relu, advice="False in mmdet's released DyHead configs"),
        center_offset(*centers, advice="0 in mmdet's atss_r50_fpn_dyhead_1x_coco, 0.5 in its others"),
    )


@register_format(
    _NAME,
    lambda k: any_key(k, r'^(neck\.)?(\d+\.)?dyhead_blocks\.\d+\.spatial_conv_offset\.'),
    settings=_settings,
)
def convert_mmdet_dyhead(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert mmdet's ATSS with FPN and DyHead necks; a Swin backbone gets our names, others keep mmdet's.

    mmdet's deformable convolutions have no bias; ours get a bias of zeros, which computes the same.
    """
    state = dict(state)
    backbone, skipped = pop_prefix(state, r'backbone\.'), {}
    if any('.w_msa.' in key for key in backbone):
        backbone, left_out = convert_mm_swin(backbone)
        skipped = add_prefix(left_out, 'backbone.')
    state = rename(
        state, [(r'^(neck\.)?(\d+\.)?dyhead_blocks\.', 'neck.1.dyhead_blocks.'), (r'^neck\.(?!\d)', 'neck.0.')]
    )
    state = _NAMES.to_ours(state)
    for key in [key for key in state if re.search(r'^bbox_head\.blocks\.\d+\.(high|mid|low)\.weight$', key)]:
        state.setdefault(key.replace('weight', 'bias'), torch.zeros(len(state[key]), dtype=state[key].dtype))
    fit_shapes(state)
    return {**add_prefix(backbone, 'backbone.'), **state}, skipped


@register_export(
    _NAME,
    is_detector,
    wrapper='state_dict',
    settings=[OFFSETS, relu_before_extra_convs(True, False), center_offset(0, 0.5)],
)
def export_mmdet_dyhead(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of mmdet's detector with the necks ``[FPN, DyHead]``.

    Raises:
        ValueError: a deformable convolution has a bias other than zero, which mmdet's lack.
    """
    state, left_out = hold(state, r'^(backbone|neck|bbox_head)\.', 'mmdet')
    for key in [key for key in state if re.search(_BIAS, key)]:
        if bool((bias := state.pop(key)).any()):
            raise ValueError(
                f'{key} is not zero (up to {bias.abs().max():.3g}), and deformable convolutions of mmdet have no bias, '
                "without which the outputs differ; write it as 'DyHead', which has one"
            )
    backbone = pop_prefix(state, r'backbone\.')
    if is_backbone(backbone):
        exported = export_mm_swin(backbone, settings)
        backbone, left_out = exported.tensors, left_out | add_prefix(exported.left_out, 'backbone.')
    state = _NAMES.to_theirs(state)
    for key, value in state.items():
        if re.search(r'\.(scale_attn_module\.1|task_attn_module\.conv[12]\.conv)\.weight$', key):
            state[key] = value[..., None, None]
    return Exported({**add_prefix(backbone, 'backbone.'), **state}, left_out)
