"""Building blocks of drawings: text, resized images, grids.

Text is in DejaVu Sans, which matplotlib ships, so that drawings are the same on every machine. A character that it
lacks is written as its code, as in ``U+732B``; ``FLORENCE_MM_FONT=FILE`` in the environment names a font that has it.
Images are ``(H, W, 3)`` uint8 RGB.
"""

import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from florence_mm.errors import UsageError
from florence_mm.utils.files import write_atomic

Colour = tuple[int, int, int]

INK: Colour = (31, 35, 40)
FAINT: Colour = (110, 119, 129)
PAPER: Colour = (255, 255, 255)
SHADE: Colour = (234, 238, 242)
# a green and a red that also differ in brightness; a mark beside them says the same
RIGHT: Colour = (26, 127, 55)
WRONG: Colour = (207, 34, 46)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, or the font file named by ``FLORENCE_MM_FONT``, at ``size`` pixels.

    Raises:
        UsageError: ``FLORENCE_MM_FONT`` is no font file.
    """
    import matplotlib

    if given := os.environ.get('FLORENCE_MM_FONT'):
        try:
            return ImageFont.truetype(given, size, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            raise UsageError(f'FLORENCE_MM_FONT={given} cannot be read as a font ({error}); name a font file') from None
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    path = Path(matplotlib.get_data_path()) / 'fonts/ttf' / name
    # the basic layout engine is in every build of Pillow, so widths are the same everywhere
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def drawable(text: str, face: ImageFont.FreeTypeFont) -> str:
    """Make one line of characters that a font has; others become their codes, so that texts stay different.

    >>> drawable('a 猫 or 犬小', font(12))
    'a U+732B or U+72AC U+5C0F'
    """
    parts: list[str] = []
    for char in ' '.join(text.split()):
        shown = char if _has_glyph(char, face) else f'U+{ord(char):04X}'
        # a code stands apart from its neighbours
        if parts and (len(shown) > 1 or len(parts[-1]) > 1) and parts[-1] != ' ' != shown:
            parts.append(' ')
        parts.append(shown)
    return ''.join(parts)


@cache
def _has_glyph(char: str, face: ImageFont.FreeTypeFont) -> bool:
    # U+FFFF is no character, so its picture is that of every missing one
    return char.isascii() and char.isprintable() or bytes(face.getmask(char)) != bytes(face.getmask('\uffff'))


def fit_text(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """Shorten ``text`` with an ellipsis to one :func:`drawable` line of ``width`` pixels."""
    text = drawable(text, face)
    if face.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # the longest prefix that fits
    while low < high:
        middle = (low + high + 1) // 2
        if face.getlength(text[:middle].rstrip() + '…') <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + '…'


def fit_names(names: Iterable[str], face: ImageFont.FreeTypeFont, width: float) -> dict[str, str]:
    """Shorten names as :func:`fit_text` does; those that would then be equal end with their number, from 1.

    Args:
        names: the names, of which repetitions count once.
        face: the font.
        width: pixels for each.

    Returns:
        the text to draw for each name.
    """
    names = list(dict.fromkeys(names))
    shown = {name: fit_text(name, face, width) for name in names}
    count = Counter(shown.values())
    for number, name in enumerate(names, 1):
        if count[shown[name]] > 1:
            end = f'…{number}'
            shown[name] = fit_text(f'{name} …', face, width - face.getlength(end)).rstrip('… ') + end
    return shown


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Wrap ``text`` at spaces into at most ``lines`` lines of ``width`` pixels; the last one is shortened."""
    words, wrapped = drawable(text, face).split(), []
    while words and len(wrapped) < lines - 1:
        count = 1
        while count < len(words) and face.getlength(' '.join(words[: count + 1])) <= width:
            count += 1
        wrapped.append(fit_text(' '.join(words[:count]), face, width))
        words = words[count:]
    if words:
        wrapped.append(fit_text(' '.join(words), face, width))
    return wrapped


def fit_image(image: np.ndarray, height: int, width: int, background: Colour = SHADE) -> np.ndarray:
    """Resize ``image`` to fit into ``(height, width)``, centred on ``background``.

    Raises:
        ValueError: ``image`` is not ``(H, W, 3)`` uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f'an image to draw has shape {image.shape} and type {image.dtype}; expected (H, W, 3) uint8')
    factor = min(height / image.shape[0], width / image.shape[1])
    size = [max(1, round(factor * side)) for side in image.shape[1::-1]]
    interpolation = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    resized = cv2.resize(image, size, interpolation=interpolation)
    canvas = np.full((height, width, 3), background, dtype=np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = resized
    return canvas


def tile(cells: list[np.ndarray], columns: int, gap: int = 12, title: str | None = None) -> np.ndarray:
    """Tile cells of one size in rows of ``columns``, on white, with an optional title."""
    height, width = cells[0].shape[:2]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    head = 36 if title else 0
    sheet = Image.new('RGB', (columns * (width + gap) + gap, head + rows * (height + gap) + gap), PAPER)
    for i, cell in enumerate(cells):
        row, column = divmod(i, columns)
        sheet.paste(Image.fromarray(cell), (gap + column * (width + gap), head + gap + row * (height + gap)))
    if title:
        face = font(17, bold=True)
        text = fit_text(title, face, sheet.width - 2 * gap)
        ImageDraw.Draw(sheet).text((gap, gap), text, font=face, fill=INK)
    return np.array(sheet)


def save_png(image: np.ndarray, path: str | Path) -> None:
    """Write ``image (H, W, 3)`` uint8 RGB as PNG, atomically; the folder is created."""
    if Path(path).suffix.lower() != '.png':
        raise ValueError(f'{path} must end in .png')
    # there may be thousands, and each can be drawn again
    write_atomic(path, cv2.imencode('.png', image[..., ::-1])[1].tobytes(), durable=False)
