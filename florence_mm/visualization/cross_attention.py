"""Where a fusion model looks for a word: cross-attention drawn over the picture.

Shape legend: ``T`` text tokens, ``N = h * w`` image tokens, ``A`` heads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, fit_image, fit_text, font
from .video import overlay_map

if TYPE_CHECKING:
    from florence_mm.models.multimodal.co_attention import CrossWeights
    from florence_mm.models.tokenizers.protocol import TextTokenizer

_LEAST_SIDE = 320  # of a panel; a smaller picture is enlarged by a whole factor
_GAP = 10


def find_word(word: str, input_ids: Tensor, tokenizer: 'TextTokenizer') -> list[int]:
    """The places of a word's tokens in a text, those of all its occurrences.

    Capitals, and punctuation around a word, make no difference.

    Args:
        word: one word.
        input_ids: ``(T,)`` of the text, without padding.
        tokenizer: it made the ids; its ``word_starts`` says which tokens are a word.

    Raises:
        ValueError: the text has no such word.
    """
    starts = tokenizer.word_starts(input_ids[None])[0].tolist()
    words: list[list[int]] = []
    for place, (token, begins) in enumerate(zip(input_ids.tolist(), starts, strict=True)):
        if token in tokenizer.special_ids:
            words.append([])  # so that what follows begins anew
        elif begins or not words:
            words.append([place])
        else:
            words[-1].append(place)
    named = [(_plain(tokenizer.decode(input_ids[places])), places) for places in words if places]
    found = [place for name, places in named if name == _plain(word) and name for place in places]
    if not found:
        known = ', '.join(dict.fromkeys(name for name, _ in named if name))
        raise ValueError(f'the word {word!r} is not in the text {tokenizer.decode(input_ids)!r}; it has {known}')
    return found


def _plain(word: str) -> str:
    return re.sub(r'^\W+|\W+$', '', word).casefold()


def word_map(attention: Mapping[int, 'CrossWeights'], places: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """The attention of a word to each place of the picture: a mean over the layers given, all heads, and the tokens.

    Args:
        attention: by number of layer, of one text with one picture: ``text_to_image (1, A, T, N)``.
        places: of the word's tokens.
        grid: ``(h, w)``.

    Returns:
        ``(h, w)`` fp32 on the CPU; the sum is 1.

    Raises:
        ValueError: no layers, or a grid of another number of places.
    """
    if not attention:
        raise ValueError('there is no attention to draw; ask the model for that of at least one layer')
    layers = torch.stack([weights.text_to_image[0, :, list(places)] for weights in attention.values()])
    if layers.shape[-1] != grid[0] * grid[1]:
        raise ValueError(f'a grid of {grid[0]} x {grid[1]} places is not that of {layers.shape[-1]} image tokens')
    return layers.float().mean((0, 1, 2)).view(grid).cpu()  # (layers, A, tokens, N) -> (N,) -> (h, w)


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
