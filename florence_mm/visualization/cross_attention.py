"""Cross-attention of a word in a fusion model, drawn over the image.

Shape legend: ``T`` text tokens, ``h, w`` image tokens, ``A`` heads.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from florence_mm.moved import moved_names

from .canvas import FAINT, INK, PAPER, fit_image, fit_text, font
from .video import overlay_map

__getattr__ = moved_names(__name__, {'find_word': 'florence_mm.models.tokenizers.words'})

_LEAST_SIDE = 320  # of a panel; a smaller image is enlarged by an integer factor
_GAP = 10


def word_map(attention: Tensor, places: Sequence[int]) -> Tensor:
    """Average the attention of a word to each image token over the given layers, all heads and the word's tokens.

    Args:
        attention: ``(layers, A, T, h, w)`` of one text and one image.
        places: indices of the word's tokens among the T.

    Returns:
        ``(h, w)`` fp32 on the CPU; the sum is 1.

    Raises:
        ValueError: no layers.
    """
    if not len(attention):
        raise ValueError('there is no attention to draw; ask the model for that of at least one layer')
    return attention[:, :, list(places)].float().mean((0, 1, 2)).cpu()


def draw_word_attention(image: np.ndarray, weights: Tensor, word: str, text: str) -> np.ndarray:
    """Draw an image, beside it the image under the heat map of a word's attention, and a legend below.

    Colours go from dark violet (0) to yellow (the maximum, which the legend states).

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB, as the model sees it.
        weights (Tensor): ``(h, w)`` from :func:`word_map`.
        word (str): The word.
        text (str): The text that contains it.

    Returns:
        np.ndarray: ``(f H + 54, 2 f W + 10, 3)`` uint8 RGB with the enlargement factor f.

    Raises:
        ValueError: ``image`` or ``weights`` has another shape or type.
    """
    if weights.ndim != 2 or not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f'attention of shape {tuple(weights.shape)} must be (h, w) with finite values from 0')
    longest = max(image.shape[:2], default=0)
    factor = -(-_LEAST_SIDE // longest) if 0 < longest < _LEAST_SIDE else 1
    height, width = factor * image.shape[0], factor * image.shape[1]
    picture = fit_image(image, height, width)
    canvas = Image.new('RGB', (2 * width + _GAP, height + 54), PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    canvas.paste(Image.fromarray(overlay_map(picture[None], weights[None])[0]), (width + _GAP, 0))
    draw, face = ImageDraw.Draw(canvas), font(15, bold=True)
    line = fit_text(f'“{word}” in: {text}', face, canvas.width - _GAP)
    draw.text((_GAP // 2, height + 7), line, font=face, fill=INK)
    share = f'yellow: {float(weights.max()):.3f} of the attention in one of {weights.numel()} places'
    line = fit_text(f'{share} (even: {1 / weights.numel():.3f})', font(13), canvas.width - _GAP)
    draw.text((_GAP // 2, height + 31), line, font=font(13), fill=FAINT)
    return np.array(canvas)
