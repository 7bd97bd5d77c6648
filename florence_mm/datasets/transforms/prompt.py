"""Prompt templates as text augmentation."""

import re
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from florence_mm.language.prompts import fill_template, get_templates
from florence_mm.registry import TRANSFORMS

_ARTICLE = re.compile(r'^\s*(a|an|the)\s+', re.IGNORECASE)


@TRANSFORMS.register_module()
class RandomPrompt(BaseTransform):
    """Put class names and short captions into a random template (Florence, section 2.2).

    The sample is marked ``augmented``; its label stays that of the text without the template. Texts that are already
    marked and captions longer than ``max_words`` stay unchanged. A caption loses its English article and full stop, as
    the template has its own. Draws from numpy's global generator.

    Args:
        templates (str | Sequence[str]): See :func:`florence_mm.language.prompts.get_templates`.
        max_words (int): Longest caption in words that is put into a template; class names always are. The paper does
            not define "short"; 0 excludes all captions.
        prob (float): Probability of using a template.
    """

    def __init__(self, templates: str | Sequence[str] = 'imagenet', max_words: int = 3, prob: float = 1.0) -> None:
        self.templates = get_templates(templates)
        if max_words < 0:
            raise ValueError(f'max_words={max_words} must not be negative')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} must be a probability, from 0 to 1')
        self.max_words = max_words
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change ``text`` and ``augmented``, and keep the bare text as ``label``."""
        # always drawn, so that later transforms get the same random stream
        draw, which = np.random.rand(), np.random.randint(len(self.templates))
        text = results['text']
        short = results.get('is_class', False) or len(text.split()) <= self.max_words
        if results.get('augmented', False) or not short or draw >= self.prob:
            return results
        results.setdefault('label', text)
        if not results.get('is_class', False):
            text = _ARTICLE.sub('', text).rstrip(' .') or text
        results['text'] = fill_template(self.templates[which], text)
        results['augmented'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.templates)} templates, max_words={self.max_words}, prob={self.prob})'
