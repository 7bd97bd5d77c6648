"""Metrics, and test loops that need more than one pass.

``functional`` has the computations on tensors and lists, ``metrics`` the registered classes that use them. Not here:
predictions, which models make.
"""

from . import functional, metrics, rerank_loop
from .metrics import CaptionScores, DetectionMetric, ImageTextRecall, VQAAccuracy, ZeroShotAccuracy

__all__ = [
    'CaptionScores',
    'DetectionMetric',
    'ImageTextRecall',
    'VQAAccuracy',
    'ZeroShotAccuracy',
    'functional',
    'metrics',
    'rerank_loop',
]
