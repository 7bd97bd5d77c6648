"""timm's Swin, whose patch merging belongs to the stage after it (timm ``models/swin_transformer.py``)."""

import re
from typing import Any

from .exporting import Exported, register_export
from .renaming import Skipped, StateDict, any_key, register_format
from .swin import OPTIONAL_PARTS, TABLE, convert_swin, is_swin, small_maps, take_swin

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
    """Convert timm's layout."""
    return convert_swin(_move_merging(state, -1))


@register_export(_NAME, is_swin, settings=[small_maps(False)])
def export_timm_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write timm's layout, for a model with ``num_classes=0``."""
    state, left_out = take_swin(state, 'timm')
    return Exported(_move_merging(state, 1), left_out, {'head': 'made by timm unless num_classes=0'})


def _move_merging(state: StateDict, by: int) -> StateDict:
    return {
        re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) + by}.downsample', key): value
        for key, value in state.items()
    }
