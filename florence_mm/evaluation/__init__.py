"""Metrics and evaluation protocols."""

from . import functional, metrics
from .metrics import DetectionMetric, ImageTextRecall, ZeroShotAccuracy

__all__ = ['DetectionMetric', 'ImageTextRecall', 'ZeroShotAccuracy', 'functional', 'metrics']
