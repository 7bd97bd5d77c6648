"""Metrics."""

from .retrieval import ImageTextRecall
from .zero_shot import ZeroShotAccuracy

__all__ = ['ImageTextRecall', 'ZeroShotAccuracy']
