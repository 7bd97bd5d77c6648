"""What the public layouts of ATSS detectors with Dynamic Head share.

Ours is ``backbone.*``, ``neck.*`` (mmdet's FPN) and ``bbox_head.*``. Public weights need ``offset_mode='legacy'``; of
detectron2 also a neck with ``relu_before_extra_convs=True`` (P7), those of mmdet's released DyHead configs not.
"""

import re
from collections.abc import Collection
from typing import Any

from torch import nn

from .renaming import StateDict, any_key
from .settings import Setting

OFFSETS = Setting('offset_mode', r'(^|\.)blocks\.\d+$', lambda m: getattr(m, 'offset_mode', None), ('legacy',))
_RELU = 'relu_before_extra_convs'


def relu_before_extra_convs(*accepted: bool, advice: str = '') -> Setting:
    """The setting whether the neck's convolutions for further levels get the positive part of the level before."""
    return Setting(f'{_RELU} of the neck', r'(^|\.)neck$', lambda m: getattr(m, _RELU, None), accepted, advice)


def center_offset(*accepted: float, advice: str = '') -> Setting:
    """The setting where in its cell an anchor lies."""
    return Setting('center_offset of the anchors', r'(^|\.)bbox_head$', _center_offset, accepted, advice)


def _center_offset(head: nn.Module) -> Any:
    return getattr(getattr(head, 'prior_generator', None), 'center_offset', None)


def is_detector(keys: Collection[str]) -> bool:
    """Whether our keys are those of a detector with Dynamic Head."""
    return any_key(keys, r'^bbox_head\.blocks\.\d+\.offset_conv\.')


def fit_shapes(state: StateDict) -> None:
    """Reshape weights of 1x1 convolutions to linear layers and scale factors of levels to scalars, in place."""
    for key, value in state.items():
        if re.search(r'\.(scale_attn|task_attn\.fc[12])\.weight$', key) and value.ndim == 4:
            state[key] = value.flatten(1)  # (D, C, 1, 1) to (D, C)
        elif key.endswith('.scale') and value.numel() == 1:
            state[key] = value.reshape(())
