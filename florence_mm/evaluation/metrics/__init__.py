"""Metrics."""

from .detection import DetectionMetric
from .retrieval import ImageTextRecall
from .zero_shot import ZeroShotAccuracy

__all__ = ['DetectionMetric', 'ImageTextRecall', 'ZeroShotAccuracy']
