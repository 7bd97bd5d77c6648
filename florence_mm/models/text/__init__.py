"""Text encoders: from token ids to features. Not here: tokenizers."""

from florence_mm.moved import moved_names

from .clip_text import CLIPTextTower, CLIPTokenEncoder
from .roberta import RobertaTextEncoder

__all__ = ['CLIPTextTower', 'CLIPTokenEncoder', 'RobertaTextEncoder']

__getattr__ = moved_names(
    __name__,
    dict.fromkeys(
        ('CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch'),
        'florence_mm.models.tokenizers',
    ),
)
