"""Whole models: pretraining, fusion of image and text, zero-shot detection."""

from .meter import METER
from .preprocessor import ImageTextDataPreprocessor
from .unicl import UniCL
from .zero_shot_detector import ZeroShotDetector

__all__ = ['METER', 'ImageTextDataPreprocessor', 'UniCL', 'ZeroShotDetector']
