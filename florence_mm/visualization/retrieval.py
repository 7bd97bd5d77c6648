"""Drawing of retrieval results."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, RIGHT, WRONG, fit_image, font, save_png, tile, wrap_text

IMAGE_SIZE = 112
TEXT_WIDTH = 220
GAP = 10


def draw_retrieval_grid(
    texts: Sequence[str],
    images: Sequence[np.ndarray],
    similarity: Tensor,
    path: str | Path,
    right: Sequence[Collection[int]] | None = None,
    top: int = 5,
    title: str | None = None,
    pictures: Sequence[np.ndarray | None] | None = None,
) -> None:
    """Draw a row per text with the most similar images and their similarities, and write the PNG.

    Args:
        texts (Sequence[str]): M queries.
        images (Sequence[np.ndarray]): N images ``(H, W, 3)`` uint8 RGB.
        similarity (Tensor): ``(M, N)``.
        path (str | Path): The PNG file.
        right (Sequence[Collection[int]] | None): Correct images of each text, which get a green frame and a tick; the
            others get a red frame and a cross.
        top (int): Images per row.
        title (str | None): The title.
        pictures (Sequence[np.ndarray | None] | None): The image of each query that is one, drawn in place of its text.

    Raises:
        ValueError: lengths differ, there is nothing to draw, or ``top`` is below 1.
    """
    if similarity.shape != (len(texts), len(images)) or not similarity.numel():
        raise ValueError(
            f'similarity of shape {tuple(similarity.shape)} must be {len(texts)} texts by {len(images)} images, at '
            'least one of each'
        )
    if right is not None and len(right) != len(texts):
        raise ValueError(f'{len(texts)} texts, but right images for {len(right)}')
    if top < 1:
        raise ValueError(f'top is {top}; draw at least 1 image a text')
    top = min(top, len(images))
    rows = []
    for i, text in enumerate(texts):
        order = similarity[i].float().sort(descending=True, stable=True).indices[:top].tolist()
        marks = [None if right is None else index in right[i] for index in order]
        best = [(images[index], float(similarity[i, index])) for index in order]
        rows.append(_draw_row(text, best, marks, None if pictures is None else pictures[i]))
    save_png(tile(rows, columns=1, gap=12, title=title), path)


def _draw_row(
    text: str, best: list[tuple[np.ndarray, float]], marks: list[bool | None], picture: np.ndarray | None
) -> np.ndarray:
    row = Image.new('RGB', (TEXT_WIDTH + len(best) * (IMAGE_SIZE + GAP), IMAGE_SIZE + 20), PAPER)
    draw = ImageDraw.Draw(row)
    lines = wrap_text(text, font(14), TEXT_WIDTH - GAP, lines=5) if picture is None else []
    if picture is not None:
        row.paste(Image.fromarray(fit_image(picture, IMAGE_SIZE, IMAGE_SIZE)), ((TEXT_WIDTH - IMAGE_SIZE) // 2, 0))
    top = (IMAGE_SIZE - 20 * len(lines)) // 2
    for i, line in enumerate(lines):
        draw.text((0, top + 20 * i), line, font=font(14), fill=INK)
    for i, ((image, score), mark) in enumerate(zip(best, marks, strict=True)):
        left = TEXT_WIDTH + i * (IMAGE_SIZE + GAP)
        row.paste(Image.fromarray(fit_image(image, IMAGE_SIZE, IMAGE_SIZE)), (left, 0))
        colour = FAINT if mark is None else RIGHT if mark else WRONG
        if mark is not None:
            draw.rectangle((left, 0, left + IMAGE_SIZE - 1, IMAGE_SIZE - 1), outline=colour, width=3)
        label = {True: '✓ ', False: '✗ ', None: ''}[mark] + f'{score:.2f}'
        draw.text((left, IMAGE_SIZE + 3), label, font=font(12), fill=colour)
    return np.array(row)
