"""Text encoders and decoders: from token ids to features. Not here: tokenizers."""

from florence_mm.moved import moved_names

from .clip_text import CLIPTextTower, CLIPTokenEncoder
from .language_model import TransformersLanguageModel
from .qformer import QFormer
from .roberta import RobertaTextEncoder
from .stack import StackMemory, TextStack
from .stack_language import StackLanguageModel

__all__ = [
    'CLIPTextTower',
    'CLIPTokenEncoder',
    'QFormer',
    'RobertaTextEncoder',
    'StackLanguageModel',
    'StackMemory',
    'TextStack',
    'TransformersLanguageModel',
]

__getattr__ = moved_names(
    __name__,
    dict.fromkeys(
        ('CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch'),
        'florence_mm.models.tokenizers',
    ),
)
