"""Where a fusion model looks for a word: cross-attention drawn over the picture.

Shape legend: ``T`` text tokens, ``h, w`` image tokens, ``A`` heads.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, fit_image, fit_text, font
from .video import overlay_map

_LEAST_SIDE = 320  # of a panel; a smaller picture is enlarged by a whole factor
_GAP = 10


def word_map(attention: Tensor, places: Sequence[int]) -> Tensor:
    """The attention of a word to each place of the picture: a mean over the layers given, all heads, and its tokens.

    Args:
        attention: ``(layers, A, T, h, w)`` of one text with one picture.
        places: of the word's tokens among the T.

    Returns:
        ``(h, w)`` fp32 on the CPU; the sum is 1.

    Raises:
        ValueError: no layers.
    """
    if not len(attention):
        raise ValueError('there is no attention to draw; ask the model for that of at least one layer')
    return attention[:, :, list(places)].float().mean((0, 1, 2)).cpu()


def draw_word_attention(image: np.ndarray, weights: Tensor, word: str, text: str) -> np.ndarray:
    """The picture, beside it the same under the colours of a word's attention, and below them what is shown.

    Colours go from dark violet (none) to yellow (the largest value, which is written below).

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB, as the model sees it.
        weights (Tensor): ``(h, w)`` from :func:`word_map`.
        word (str): The word.
        text (str): The text that it stands in.

    Returns:
        np.ndarray: ``(f H + 54, 2 f W + 10, 3)`` uint8 RGB with the factor f of enlargement.

    Raises:
        ValueError: ``image`` is no picture, or ``weights`` are no map.
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
