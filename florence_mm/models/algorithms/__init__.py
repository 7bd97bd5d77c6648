"""Pretraining algorithms: UniCL, and its fine-tuning on classes. Not here: encoders, tokenizers, losses (``ops``)."""

from florence_mm.moved import moved_names

from .unicl import UniCL
from .unicl_classifier import UniCLClassifier

__all__ = ['UniCL', 'UniCLClassifier']

__getattr__ = moved_names(
    __name__,
    {
        'METER': 'florence_mm.models.multimodal',
        'RetrievalReranker': 'florence_mm.models.multimodal',
        'ZeroShotDetector': 'florence_mm.models.detectors',
        'ImageTextDataPreprocessor': 'florence_mm.models.preprocessor',
    },
)
