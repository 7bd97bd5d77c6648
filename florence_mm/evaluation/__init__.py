"""Metrics and evaluation protocols."""

from . import functional, metrics
from .metrics import CaptionScores, DetectionMetric, ImageTextRecall, VQAAccuracy, ZeroShotAccuracy

__all__ = [
    'CaptionScores',
    'DetectionMetric',
    'ImageTextRecall',
    'VQAAccuracy',
    'ZeroShotAccuracy',
    'functional',
    'metrics',
]
