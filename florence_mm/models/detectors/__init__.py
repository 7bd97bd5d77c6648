"""Detectors: the zero-shot detector. Not here: dense heads and layers of detectors."""

from .zero_shot_detector import ZeroShotDetector

__all__ = ['ZeroShotDetector']
