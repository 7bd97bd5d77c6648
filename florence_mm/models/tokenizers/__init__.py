"""Tokenizers, one file per vocabulary; ``protocol.py`` has the protocol that models use."""

from .clip import CLIPTokenizer, MaskedCLIPTokenizer
from .protocol import TextTokenizer, TokenBatch
from .roberta import RobertaTextTokenizer

__all__ = ['CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch']
