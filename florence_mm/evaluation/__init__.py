"""Metrics and evaluation protocols."""

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
