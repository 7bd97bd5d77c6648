"""Tokenizers: the protocol that models rely on, and one file a vocabulary."""

from .clip import CLIPTokenizer
from .masked_clip import MaskedCLIPTokenizer
from .protocol import TextTokenizer, TokenBatch
from .roberta import RobertaTextTokenizer

__all__ = ['CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch']
