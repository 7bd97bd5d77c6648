"""Metrics, and test loops that need more than one pass.

``functional`` has the computations on tensors and lists, ``metrics`` the registered classes that use them. Not here:
predictions, which models make.
"""

from . import controls_loop, functional, metrics, rerank_loop
from .metrics import (
    CaptionScores,
    DetectionMetric,
    ImageTextRecall,
    MovedRegions,
    PhraseRecall,
    PlaceAccuracy,
    PolygonIoU,
    ReferringAccuracy,
    TextAccuracy,
    VQAAccuracy,
    WrittenBoxes,
    ZeroShotAccuracy,
)

__all__ = [
    'CaptionScores',
    'DetectionMetric',
    'ImageTextRecall',
    'MovedRegions',
    'PhraseRecall',
    'PlaceAccuracy',
    'PolygonIoU',
    'ReferringAccuracy',
    'TextAccuracy',
    'VQAAccuracy',
    'WrittenBoxes',
    'ZeroShotAccuracy',
    'controls_loop',
    'functional',
    'metrics',
    'rerank_loop',
]
