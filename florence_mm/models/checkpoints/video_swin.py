"""Recognizers of Video Swin: its public code, and mmaction2, which numbers the norm of the last stage.

Sources of the layouts: Video-Swin-Transformer ``mmaction/models/backbones/swin_transformer.py``; mmaction2
``models/backbones/swin.py``.
"""

import math
from collections.abc import Collection
from typing import Any

from florence_mm.ops.windows import relative_position_index

from .classifiers import TABLE
from .exporting import Exported, hold, register_export
from .renaming import Skipped, StateDict, any_key, register_format
from .swin import OPTIONAL_PARTS, name_last_norm, number_last_norm

_PUBLIC, _MMACTION = 'Video Swin or VideoCoSwin', 'mmaction2 Video Swin'
_COMPUTED = 'computed by the package, from its window'


def _is_recognizer(keys: Collection[str]) -> bool:
    return any_key(keys, rf'^backbone\.{TABLE}') and any_key(keys, r'^cls_head\.')


def _is_of_mmaction(keys: Collection[str]) -> bool:
    return _is_recognizer(keys) and any_key(keys, r'^backbone\.norm\d\.')


@register_format(_MMACTION, _is_of_mmaction, optional_parts=OPTIONAL_PARTS)
@register_format(_PUBLIC, lambda k: _is_recognizer(k) and not _is_of_mmaction(k), optional_parts=OPTIONAL_PARTS)
def convert_video_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a recognizer of Video Swin's public code or mmaction2; backbone and head keep their prefixes."""
    return name_last_norm(state), {}


@register_export(_PUBLIC, _is_recognizer, wrapper='state_dict')
def export_video_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of Video Swin's public code, which is ours."""
    return _recognizer(state, 'Video Swin')


@register_export(_MMACTION, lambda k: _is_recognizer(k) and not any_key(k, r'\.downsample\.proj\.'), 'state_dict')
def export_mmaction_video_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write mmaction2's layout.

    Raises:
        ValueError: the backbone has a layer scale.
    """
    if any_key(state, r'\.gamma$'):
        raise ValueError('it has a layer scale (gamma), which mmaction2 lacks, and would give other features without')
    exported = _recognizer(state, 'mmaction2')
    exported.tensors = number_last_norm(exported.tensors)
    return exported


def _recognizer(state: StateDict, layout: str) -> Exported:
    state, left_out = hold(state, r'^(backbone|cls_head)\.', layout)
    tables = {key: value for key, value in state.items() if key.endswith('relative_position_bias_table')}
    windows = {key: _window(len(value)) for key, value in tables.items()}
    absent = {'relative_position_index': _COMPUTED} if None in windows.values() else {}
    for key, window in windows.items():
        if window is not None:
            state[key.replace('bias_table', 'index')] = relative_position_index(window)
    return Exported(state, left_out, absent)


def _window(rows: int) -> tuple[int, int, int] | None:
    """The window (steps, side, side) of a table of ``(2 steps - 1)(2 side - 1)^2`` rows, if only one has so many."""
    sides = [side for side in range(2, math.isqrt(rows) + 1) if rows % (2 * side - 1) ** 2 == 0]
    steps = {side: rows // (2 * side - 1) ** 2 for side in sides}
    found = [((count + 1) // 2, side, side) for side, count in steps.items() if count % 2]
    return found[0] if len(found) == 1 else None
