"""Detectors."""

from .zero_shot_detector import ZeroShotDetector

__all__ = ['ZeroShotDetector']
