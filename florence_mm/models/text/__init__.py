"""Text towers and their tokenizers."""

from .clip_text import CLIPTextTower
from .clip_tokens import CLIPTokenEncoder, MaskedCLIPTokenizer
from .roberta import RobertaTextEncoder, RobertaTextTokenizer
from .tokenizer import CLIPTokenizer
from .tokens import TextTokenizer, TokenBatch

__all__ = [
    'CLIPTextTower',
    'CLIPTokenEncoder',
    'CLIPTokenizer',
    'MaskedCLIPTokenizer',
    'RobertaTextEncoder',
    'RobertaTextTokenizer',
    'TextTokenizer',
    'TokenBatch',
]
