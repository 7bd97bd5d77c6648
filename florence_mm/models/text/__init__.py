"""Text towers and their tokenizers."""

from .clip_text import CLIPTextTower
from .tokenizer import CLIPTokenizer

__all__ = ['CLIPTextTower', 'CLIPTokenizer']
