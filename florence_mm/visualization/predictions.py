"""Drawing of zero-shot predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, RIGHT, SHADE, WRONG, Colour, fit_image, fit_names, font, save_png, tile

IMAGE_SIZE = 112
PANEL_WIDTH = 168
MARGIN = 10


def draw_prediction(
    image: np.ndarray, scores: Tensor, class_names: Sequence[str], gt_label: int | None = None, top: int = 3
) -> np.ndarray:
    """Draw an image with its best classes and their scores beside it.

    A correct best class is green with a tick, a wrong one red with a cross; the true class is then named below.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB, of any size.
        scores (Tensor): ``(K,)`` from 0 to 1.
        class_names (Sequence[str]): K names.
        gt_label (int | None): The true class; None if unknown.
        top (int): Number of classes listed.

    Returns:
        np.ndarray: ``(112, 290, 3)`` uint8 RGB; taller for more than 3 classes.

    Raises:
        ValueError: shapes do not fit, ``gt_label`` is out of range, or ``top`` is below 1.
    """
    if scores.ndim != 1 or len(scores) != len(class_names):
        raise ValueError(f'scores of shape {tuple(scores.shape)} must be one for each of {len(class_names)} classes')
    if top < 1:
        raise ValueError(f'top is {top}; list at least 1 class')
    if gt_label is not None and not 0 <= gt_label < len(class_names):
        raise ValueError(f'gt_label={gt_label} is outside the {len(class_names)} classes')
    # a stable sort, so that equal scores are ordered by class index, as in argmax
    order = scores.float().sort(descending=True, stable=True).indices[:top].tolist()
    height = max(IMAGE_SIZE, 30 * top + 22)
    cell = Image.new('RGB', (IMAGE_SIZE + MARGIN + PANEL_WIDTH, height), PAPER)
    cell.paste(Image.fromarray(fit_image(image, IMAGE_SIZE, IMAGE_SIZE)), (0, 0))
    draw = ImageDraw.Draw(cell)
    right = None if gt_label is None else order[0] == gt_label
    best = font(13, bold=True)
    shown = fit_names(class_names, best, PANEL_WIDTH - 8 - best.getlength('✗ ') - font(12).getlength('0.00'))
    for row, index in enumerate(order):
        colour = _colour(row, index, gt_label)
        _draw_class(draw, 30 * row, shown[class_names[index]], float(scores[index]), colour, row == 0, right)
    if right is False:
        face = font(11)
        right_names = fit_names(class_names, face, PANEL_WIDTH - face.getlength('right: '))
        text = f'right: {right_names[class_names[gt_label]]}'
        draw.text((IMAGE_SIZE + MARGIN, 30 * top + 4), text, font=face, fill=INK)
    return np.array(cell)


def _colour(row: int, index: int, gt_label: int | None) -> Colour:
    if gt_label is not None and index == gt_label:
        return RIGHT
    if row > 0:
        return FAINT
    return INK if gt_label is None else WRONG


def _draw_class(
    draw: ImageDraw.ImageDraw, y: int, name: str, score: float, colour: Colour, best: bool, right: bool | None
) -> None:
    left, edge = IMAGE_SIZE + MARGIN, IMAGE_SIZE + MARGIN + PANEL_WIDTH
    mark = {True: '✓ ', False: '✗ ', None: ''}[right] if best else ''
    face, number = font(13, bold=best), f'{score:.2f}' if score == score else 'nan'
    number_width = font(12).getlength(number)
    draw.text((left, y), mark + name, font=face, fill=colour)
    draw.text((edge - number_width, y + 1), number, font=font(12), fill=INK if best else FAINT)
    draw.rectangle((left, y + 18, edge - 1, y + 22), fill=SHADE)
    filled = round((edge - left) * min(max(score, 0.0), 1.0)) if score == score else 0
    if filled:
        draw.rectangle((left, y + 18, left + filled - 1, y + 22), fill=colour)


def draw_prediction_grid(
    images: Sequence[np.ndarray],
    class_names: Sequence[str],
    scores: Tensor,
    labels: Sequence[int] | Tensor | None,
    path: str | Path,
    top: int = 3,
    columns: int = 4,
    title: str | None = None,
) -> None:
    """Draw a grid of images with their best classes (:func:`draw_prediction`), and write the PNG.

    Args:
        images (Sequence[np.ndarray]): N images ``(H, W, 3)`` uint8 RGB.
        class_names (Sequence[str]): K names.
        scores (Tensor): ``(N, K)`` from 0 to 1.
        labels: N true classes, or None if unknown.
        path (str | Path): The PNG file.
        top (int): Classes listed per image.
        columns (int): Images per row.
        title (str | None): The title. None: the number of correct predictions, if labels are given.

    Raises:
        ValueError: lengths differ, or there are no images.
    """
    if not len(images) or len(scores) != len(images) or labels is not None and len(labels) != len(images):
        raise ValueError(
            f'{len(images)} images, {len(scores)} rows of scores and '
            f'{"no" if labels is None else len(labels)} labels; the numbers must agree and not be 0'
        )
    known = [None] * len(images) if labels is None else [int(label) for label in labels]
    cells = [
        draw_prediction(image, row, class_names, label, top)
        for image, row, label in zip(images, scores, known, strict=True)
    ]
    if title is None and labels is not None:
        right = sum(int(row.argmax()) == label for row, label in zip(scores, known, strict=True))
        title = f'zero-shot: {right} of {len(images)} right'
    save_png(tile(cells, columns, gap=18, title=title), path)
