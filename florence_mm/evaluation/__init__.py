"""Metrics and evaluation protocols."""

from . import functional, metrics
from .metrics import ImageTextRecall, ZeroShotAccuracy

__all__ = ['ImageTextRecall', 'ZeroShotAccuracy', 'functional', 'metrics']
