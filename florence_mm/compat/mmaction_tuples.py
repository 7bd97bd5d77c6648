"""Let mmaction2's ``Recognizer2D`` unpack the tuple of one feature map that our backbones return.

It does so for mmpretrain's backbones only; the tuple of any other backbone goes to the head, which refuses it.
"""

import functools
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .gap import Gap


def _keeps_tuple() -> bool:
    from mmaction.models.recognizers.recognizer2d import Recognizer2D

    recognizer = Recognizer2D.__new__(Recognizer2D)
    nn.Module.__init__(recognizer)
    recognizer.backbone_from, recognizer.backbone = 'mmaction2', lambda frames: (frames,)
    features, _ = recognizer.extract_feat(torch.zeros(1, 1, 3, 2, 2), stage='backbone')
    return isinstance(features, tuple)


def _unpack(module: ModuleType) -> None:
    original = module.Recognizer2D.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        ours = type(self.backbone).__module__.startswith('florence_mm.')
        # the maps of several stages stay a tuple, which a neck takes
        if ours and len(getattr(self.backbone, 'out_indices', ())) == 1:
            self.backbone_from = 'mmpretrain'

    module.Recognizer2D.__init__ = __init__


GAP = Gap(
    name='mmaction2 feature tuples',
    package='mmaction',
    why="Recognizer2D hands its head the tuple of any backbone but mmpretrain's, and the heads refuse tuples",
    needed=_keeps_tuple,
    patch=_unpack,
    after='mmaction.models.recognizers.recognizer2d',
)
