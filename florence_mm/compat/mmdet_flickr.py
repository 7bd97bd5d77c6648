"""Let mmdet's ``Flickr30kMetric`` merge boxes: ``merge_boxes`` asks numpy for ``np.boxes`` where it means an array."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .gap import Gap


def _fails_to_merge() -> bool:
    from mmdet.evaluation.metrics.flickr30k_metric import Flickr30kMetric

    try:
        Flickr30kMetric.merge_boxes(None, [[0, 0, 1, 1], [1, 1, 2, 2]])
    except AttributeError:
        return True
    return False


def _merge_boxes(self: Any, boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the smallest box ``[[x1, y1, x2, y2]]`` around all boxes."""
    corners = np.asarray(boxes)
    return [[*corners[:, :2].min(0), *corners[:, 2:].max(0)]]


def _patch(module: ModuleType) -> None:
    module.Flickr30kMetric.merge_boxes = _merge_boxes


GAP = Gap(
    name='mmdet Flickr30k boxes',
    package='mmdet',
    why='Flickr30kMetric(merge_boxes=True) ends in an AttributeError',
    needed=_fails_to_merge,
    patch=_patch,
    after='mmdet.evaluation.metrics.flickr30k_metric',
)
