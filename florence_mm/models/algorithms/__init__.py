"""Whole models: pretraining and zero-shot detection."""

from .preprocessor import ImageTextDataPreprocessor
from .unicl import UniCL
from .zero_shot_detector import ZeroShotDetector

__all__ = ['ImageTextDataPreprocessor', 'UniCL', 'ZeroShotDetector']
