"""Let mmaction2's heads count accuracy in mixed precision: numpy, which they ask, has no bfloat16."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .gap import Gap


def _needs_numpy() -> bool:
    from mmaction.models.heads.base import BaseHead
    from mmaction.structures import ActionDataSample

    class Head(BaseHead):
        def forward(self, x: Tensor) -> Tensor:
            return x

    head = Head.__new__(Head)  # its losses are not registered yet
    torch.nn.Module.__init__(head)
    head.num_classes, head.topk, head.label_smooth_eps, head.multi_class = 2, (1,), 0.0, False
    head.loss_cls = torch.nn.CrossEntropyLoss()
    try:
        head.loss_by_feat(torch.zeros(1, 2, dtype=torch.bfloat16), [ActionDataSample().set_gt_label(1)])
    except TypeError:
        return True
    return False


def _widen(module: ModuleType) -> None:
    for name in ('loss_by_feat', 'predict_by_feat'):
        setattr(module.BaseHead, name, _of_wide_scores(getattr(module.BaseHead, name)))


def _of_wide_scores(original: Callable) -> Callable:
    @functools.wraps(original)
    def by_feat(self: Any, cls_scores: Tensor, data_samples: Any) -> Any:
        return original(self, cls_scores.float(), data_samples)

    return by_feat


GAP = Gap(
    name='mmaction2 bfloat16 scores',
    package='mmaction',
    why='BaseHead and the metrics turn scores into numpy arrays, which cannot be of bfloat16',
    needed=_needs_numpy,
    patch=_widen,
    after='mmaction.models.heads.base',
)
