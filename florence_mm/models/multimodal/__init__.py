"""Models that fuse image and text."""

from florence_mm.moved import moved_names

from .base import VisionLanguageModel
from .meter import METER
from .reranker import RetrievalReranker

__all__ = ['METER', 'RetrievalReranker', 'VisionLanguageModel']

__getattr__ = moved_names(
    __name__,
    {
        'CoAttentionLayer': 'florence_mm.models.layers.fusion_layer',
        'CoAttentionStacks': 'florence_mm.models.multimodal.co_attention',
    },
)
