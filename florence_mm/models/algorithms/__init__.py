"""Pretraining algorithms: UniCL, its fine-tuning on classes, and language modeling. Not here: encoders, tokenizers, losses (``ops``)."""

from florence_mm.moved import moved_names

from .language_modeling import LanguageModeling
from .unicl import UniCL
from .unicl_classifier import UniCLClassifier

__all__ = ['LanguageModeling', 'UniCL', 'UniCLClassifier']

__getattr__ = moved_names(
    __name__,
    {
        'METER': 'florence_mm.models.multimodal',
        'RetrievalReranker': 'florence_mm.models.multimodal',
        'ZeroShotDetector': 'florence_mm.models.detectors',
        'ImageTextDataPreprocessor': 'florence_mm.models.preprocessor',
    },
)
