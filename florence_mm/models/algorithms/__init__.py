"""Whole models: pretraining, fusion of image and text, zero-shot detection."""

from .meter import METER
from .preprocessor import ImageTextDataPreprocessor
from .retrieval_reranker import RetrievalReranker
from .unicl import UniCL
from .zero_shot_detector import ZeroShotDetector

__all__ = ['METER', 'ImageTextDataPreprocessor', 'RetrievalReranker', 'UniCL', 'ZeroShotDetector']
