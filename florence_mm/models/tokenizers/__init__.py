"""Tokenizers, one file per vocabulary; ``protocol.py`` has the protocol that models use."""

from .bert import BertTextTokenizer
from .clip import CLIPTokenizer, MaskedCLIPTokenizer
from .protocol import TextTokenizer, TokenBatch
from .roberta import RobertaTextTokenizer

__all__ = [
    'BertTextTokenizer',
    'CLIPTokenizer',
    'MaskedCLIPTokenizer',
    'RobertaTextTokenizer',
    'TextTokenizer',
    'TokenBatch',
]
