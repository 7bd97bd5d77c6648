"""Drawing of the classes of one image: the image, and a bar for each class below it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .canvas import FAINT, INK, PAPER, SHADE, Colour, fit_image, fit_names, font

_SIDE = 480  # width of the drawing
_MARGIN = 12
_ROW = 30
_NAME_WIDTH = 190
_BEST: Colour = (31, 111, 235)
_OTHER: Colour = (140, 149, 159)


def draw_classes(image: np.ndarray, names: Sequence[str], scores: Sequence[float]) -> np.ndarray:
    """Draw an image with a bar chart of its classes below it.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB, of any size.
        names: names of the classes, best first; long ones are shortened and stay different.
        scores: their scores, from 0 to 1; a bar of full length is 1.

    Returns:
        np.ndarray: ``(H', 480, 3)`` uint8 RGB.

    Raises:
        ValueError: there are not as many scores as names, or ``image`` has another shape or type.
    """
    if len(names) != len(scores):
        raise ValueError(f'{len(names)} names and {len(scores)} scores; the numbers must agree')
    height = min(_SIDE, max(_SIDE // 4, round(_SIDE * image.shape[0] / max(image.shape[1], 1))))
    canvas = Image.new('RGB', (_SIDE, height + 2 * _MARGIN + _ROW * len(names)), PAPER)
    canvas.paste(Image.fromarray(fit_image(image, height, _SIDE)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    bold, plain = font(15, bold=True), font(13)
    shown = fit_names(names, bold, _NAME_WIDTH)
    left, right = _MARGIN + _NAME_WIDTH + 8, _SIDE - _MARGIN - round(plain.getlength('0.00')) - 8
    for row, (name, score) in enumerate(zip(names, scores, strict=True)):
        top = height + _MARGIN + row * _ROW
        draw.text((_MARGIN, top + 5), shown[name], font=bold if row == 0 else font(15), fill=INK if row == 0 else FAINT)
        draw.rectangle((left, top + 6, right - 1, top + 22), fill=SHADE)
        filled = round((right - left) * min(max(score, 0.0), 1.0))
        if filled:
            draw.rectangle((left, top + 6, left + filled - 1, top + 22), fill=_BEST if row == 0 else _OTHER)
        draw.text((right + 8, top + 6), f'{score:.2f}', font=plain, fill=INK)
    return np.array(canvas)
