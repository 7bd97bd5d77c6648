"""Vision-language models, one file per family, their base class, and the protocol by which other code uses them.

Not here: encoders, tokenizers, and the computations of heads.
"""

from florence_mm.moved import moved_names

from .base import VisionLanguageModel
from .blip import BLIP
from .blip2 import BLIP2
from .blip2_writer import BLIP2Writer
from .flamingo import FlorenceFlamingo
from .florence2 import Florence2
from .git import GIT
from .meter import METER
from .reranker import RetrievalReranker
from .simvlm import SimVLM
from .uniter import UNITER
from .vilt import ViLT

__all__ = [
    'BLIP',
    'BLIP2',
    'GIT',
    'METER',
    'UNITER',
    'BLIP2Writer',
    'Florence2',
    'FlorenceFlamingo',
    'RetrievalReranker',
    'SimVLM',
    'ViLT',
    'VisionLanguageModel',
]

__getattr__ = moved_names(
    __name__,
    {
        'CoAttentionLayer': 'florence_mm.models.layers.fusion_layer:FusionLayer',
        'CoAttentionStacks': 'florence_mm.models.multimodal.co_attention',
    },
)
