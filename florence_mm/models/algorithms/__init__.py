"""Pretraining algorithms: UniCL. Not here: their encoders, tokenizers and losses (``ops``)."""

from florence_mm.moved import moved_names

from .unicl import UniCL

__all__ = ['UniCL']

__getattr__ = moved_names(
    __name__,
    {
        'METER': 'florence_mm.models.multimodal',
        'RetrievalReranker': 'florence_mm.models.multimodal',
        'ZeroShotDetector': 'florence_mm.models.detectors',
        'ImageTextDataPreprocessor': 'florence_mm.models.preprocessor',
    },
)
