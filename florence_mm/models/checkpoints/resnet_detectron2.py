"""detectron2's ResNet, to and from the names of mmdet's and torchvision's.

Source of the layout: detectron2 ``modeling/backbone/resnet.py``. Its norms are frozen and count no batches.
"""

from collections.abc import Collection
from typing import Any

from torch import nn

from .renaming import Skipped, StateDict, any_key, keep_matching, rename
from .settings import Setting

_THEIRS = r'^(stem|res[2-5])\.'
_OURS = r'^(conv1|bn1|layer[1-4])\.'


def _style(module: nn.Module) -> Any:
    return getattr(module, 'style', None) if hasattr(module, 'layer1') else None


#: The ResNets of its detectors, MSRA's, have the stride of a block in its first convolution.
STYLE = Setting('style of the backbone', r'(^|\.)backbone$', _style, ('caffe',))


def is_detectron2_resnet(keys: Collection[str]) -> bool:
    """Whether keys of a backbone are those of detectron2's ResNet."""
    return any_key(keys, r'^res2\.0\.conv1\.weight$') and any_key(keys, r'^stem\.conv1\.weight$')


def is_resnet(keys: Collection[str]) -> bool:
    """Whether our keys of a backbone are those of mmdet's ResNet."""
    return any_key(keys, r'^layer1\.0\.conv1\.weight$') and any_key(keys, r'^conv1\.weight$')


def convert_resnet(state: StateDict) -> tuple[StateDict, Skipped]:
    """Give a ResNet mmdet's names; returns the tensors, and the other keys with the reason."""
    state, skipped = keep_matching(state, _THEIRS, 'not part of the backbone')
    rules = [
        (r'^stem\.conv1\.norm\.', 'bn1.'),
        (r'^stem\.', ''),
        (r'^res(\d)\.', lambda m: f'layer{int(m[1]) - 1}.'),
        (r'\.conv(\d)\.norm\.', r'.bn\1.'),
        (r'\.shortcut\.norm\.', '.downsample.1.'),
        (r'\.shortcut\.', '.downsample.0.'),
    ]
    return rename(state, rules), skipped


def export_resnet(state: StateDict) -> tuple[StateDict, Skipped]:
    """Give a ResNet detectron2's names, the inverse of :func:`convert_resnet`."""
    counters = [key for key in state if key.endswith('num_batches_tracked')]
    skipped = dict.fromkeys(counters, "not counted by detectron2's frozen norms")
    state, others = keep_matching(
        {key: value for key, value in state.items() if key not in skipped}, _OURS, 'DynamicHead has no place for it'
    )
    rules = [
        (r'^bn1\.', 'stem.conv1.norm.'),
        (r'^conv1\.', 'stem.conv1.'),
        (r'^layer(\d)\.', lambda m: f'res{int(m[1]) + 1}.'),
        (r'\.bn(\d)\.', r'.conv\1.norm.'),
        (r'\.downsample\.1\.', '.shortcut.norm.'),
        (r'\.downsample\.0\.', '.shortcut.'),
    ]
    return rename(state, rules), {**skipped, **others}
