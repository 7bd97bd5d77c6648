"""timm's Swin, whose patch merging belongs to the stage after it (timm ``models/swin_transformer.py``)."""

import re
from typing import Any

from .classifiers import TABLE, convert_with_head, pop_head
from .exporting import Exported, register_export
from .renaming import Skipped, StateDict, add_prefix, any_key, register_format
from .swin import OPTIONAL_PARTS, convert_swin, is_swin, small_maps, take_swin

_NAME = 'timm Swin'


@register_format(
    _NAME,
    lambda k: (
        any_key(k, rf'^{TABLE}')
        and any_key(k, r'^layers\.1\.downsample\.')
        and not any_key(k, r'^layers\.0\.downsample\.')
    ),
    optional_parts=OPTIONAL_PARTS,
)
def convert_timm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert timm's layout, with the head of a classifier."""
    return convert_with_head(move_merging(state, -1), convert_swin, 'head.fc.', 'head.')


@register_export(_NAME, is_swin, settings=[small_maps(False)])
def export_timm_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write timm's layout; without a head for a model with ``num_classes=0``."""
    head = add_prefix(pop_head(state), 'head.fc.')
    state, left_out = take_swin(state, 'timm')
    absent = {} if head else {'head': 'made by timm unless num_classes=0'}
    return Exported(move_merging(state, 1) | head, left_out, absent)


def move_merging(state: StateDict, by: int) -> StateDict:
    """Add ``by`` to the number of the stage whose downsampling a key names."""
    return {
        re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) + by}.downsample', key): value
        for key, value in state.items()
    }
