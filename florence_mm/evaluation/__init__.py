"""Metrics, the functions they are made of, and test loops that need more than one pass.

``functional`` holds the arithmetic on tensors and lists, ``metrics`` the registered classes around it. Not here:
predicting, which models do.
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
