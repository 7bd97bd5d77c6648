"""Pretraining algorithms."""

from .preprocessor import ImageTextDataPreprocessor
from .unicl import UniCL

__all__ = ['ImageTextDataPreprocessor', 'UniCL']
