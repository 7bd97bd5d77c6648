"""Tokenizers, one file per vocabulary; ``protocol.py`` has the protocol that models use."""

from .bert import BertTextTokenizer
from .byte import ByteTokenizer
from .clip import CLIPTokenizer, MaskedCLIPTokenizer
from .documents import DocumentTokenizer
from .language_model import LanguageModelTokenizer
from .locations import LocationTokenizer
from .protocol import TextTokenizer, TokenBatch
from .roberta import RobertaTextTokenizer

__all__ = [
    'BertTextTokenizer',
    'ByteTokenizer',
    'CLIPTokenizer',
    'DocumentTokenizer',
    'LanguageModelTokenizer',
    'LocationTokenizer',
    'MaskedCLIPTokenizer',
    'RobertaTextTokenizer',
    'TextTokenizer',
    'TokenBatch',
]
