"""Drawing of predicted texts, such as answers and captions, and of predictions for clips."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, RIGHT, WRONG, fit_image, font, tile, wrap_text
from .predictions import IMAGE_SIZE, draw_prediction

_SIDE = 320  # of the image
_LETTERS = 15
_GAP = 10
_FRAMES = 5


class Line(NamedTuple):
    """A text to draw.

    Attributes:
        text: the text.
        bold: whether it is a heading, such as a question.
        right: whether it is correct, which determines colour and mark; None if unknown.
    """

    text: str
    bold: bool = False
    right: bool | None = None


def draw_texts(image: np.ndarray, lines: Sequence[Line], side: int = _SIDE) -> np.ndarray:
    """Draw an image with texts below it, each in at most three rows.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB, of any size.
        lines (Sequence[Line]): The texts.
        side (int): Width, and the most that the image is high.

    Returns:
        np.ndarray: ``(H', side, 3)`` uint8 RGB.

    Raises:
        ValueError: ``image`` has another shape or type.
    """
    height = min(side, max(side // 4, round(side * image.shape[0] / max(image.shape[1], 1))))
    picture = fit_image(image, height, side)
    rows: list[tuple[str, Line]] = []
    for line in lines:
        mark = {True: '✓ ', False: '✗ ', None: ''}[line.right]
        face = font(_LETTERS, bold=line.bold)
        rows += [(row, line) for row in wrap_text(mark + line.text, face, side - _GAP, lines=3)]
    step = round(1.4 * _LETTERS)
    canvas = Image.new('RGB', (side, height + _GAP + step * len(rows)), PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, (row, line) in enumerate(rows):
        colour = INK if line.bold else FAINT if line.right is None else RIGHT if line.right else WRONG
        draw.text((_GAP // 2, height + _GAP // 2 + i * step), row, font=font(_LETTERS, bold=line.bold), fill=colour)
    return np.array(canvas)


def draw_clip_prediction(
    frames: np.ndarray, scores: Tensor, class_names: Sequence[str], gt_label: int | None = None, top: int = 3
) -> np.ndarray:
    """Draw frames of a clip, and below them its best classes (:func:`draw_prediction` of the middle frame).

    Args:
        frames (np.ndarray): ``(T, H, W, 3)`` uint8 RGB; five at even distances are drawn.
        scores, class_names, gt_label, top: see :func:`draw_prediction`.

    Returns:
        np.ndarray: ``(H', W', 3)`` uint8 RGB.

    Raises:
        ValueError: shapes do not fit, or ``gt_label`` is out of range.
    """
    if frames.ndim != 4 or not len(frames):
        raise ValueError(f'frames have shape {frames.shape}; expected (T, H, W, 3) with at least one')
    chosen = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    strip = tile([fit_image(frames[i], IMAGE_SIZE, IMAGE_SIZE) for i in chosen], columns=_FRAMES, gap=6)
    cell = draw_prediction(frames[len(frames) // 2], scores, class_names, gt_label, top)
    width = max(strip.shape[1], cell.shape[1] + 12)
    canvas = Image.new('RGB', (width, strip.shape[0] + cell.shape[0] + 6), PAPER)
    canvas.paste(Image.fromarray(strip), (0, 0))
    canvas.paste(Image.fromarray(cell), (6, strip.shape[0]))
    return np.array(canvas)
