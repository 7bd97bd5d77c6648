"""Families of models over images and texts, one file each, what they share, and the protocol that others use.

Not here: the encoders and tokenizers they are built of, and what a head computes.
"""

from florence_mm.moved import moved_names

from .base import VisionLanguageModel
from .meter import METER
from .reranker import RetrievalReranker

__all__ = ['METER', 'RetrievalReranker', 'VisionLanguageModel']

__getattr__ = moved_names(
    __name__,
    {
        'CoAttentionLayer': 'florence_mm.models.layers.transformer',
        'CoAttentionStacks': 'florence_mm.models.multimodal.co_attention',
    },
)
