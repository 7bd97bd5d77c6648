"""Tokenizers: texts to ids and back. ``protocol.py`` says what models rely on; one file a vocabulary beside it."""

from .clip import CLIPTokenizer, MaskedCLIPTokenizer
from .protocol import TextTokenizer, TokenBatch
from .roberta import RobertaTextTokenizer

__all__ = ['CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch']
