"""Whole models that give boxes. Not here: their heads and layers."""

from .zero_shot_detector import ZeroShotDetector

__all__ = ['ZeroShotDetector']
