"""Drawing of detected objects."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .canvas import INK, PAPER, Colour, fit_image, fit_names, font

Rectangle = tuple[float, float, float, float]

# neighbours differ in hue and brightness
_COLOURS: tuple[Colour, ...] = (
    (9, 105, 218),
    (251, 143, 68),
    (26, 127, 55),
    (212, 167, 44),
    (130, 80, 223),
    (74, 194, 107),
    (207, 34, 46),
    (84, 174, 255),
    (149, 56, 0),
    (255, 128, 200),
    (10, 48, 105),
    (191, 201, 42),
)
_LEAST_SIDE = 480
#: Most boxes drawn on an image, those with the highest scores.
MOST = 100
_LEAST_FONT = 11
_LABELS = 0.15  # share of the image that labels take
_HIDDEN = 0.1  # share of a label on other labels from which on it is left out
_CROWD = 40  # boxes from which on lines are thin


def class_colour(name: str, class_names: Sequence[str]) -> Colour:
    """Return the colour of a class by its index in ``class_names``; that of index 0 for an unknown class."""
    return _COLOURS[class_names.index(name) % len(_COLOURS) if name in class_names else 0]


def draw_detections(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    thickness: int | None = None,
    most: int = MOST,
) -> np.ndarray:
    """Draw boxes with class names and scores on an image.

    Labels are placed by falling score so that they do not overlap; many have a smaller font, and those for which there
    is no room are left out. An image of less than 480 pixels is enlarged by an integer factor, so that labels are
    readable.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB.
        boxes: n boxes ``(x1, y1, x2, y2)`` in pixels of ``image``.
        names: n class names, '' for none; characters that the font lacks are drawn as their codes, see
            :func:`~florence_mm.visualization.canvas.drawable`, and long ones are shortened and stay different.
        scores: n scores from 0 to 1; None: only names.
        class_names: all classes in their order, which determines the colours; None: the names in order of occurrence.
        thickness: line width in pixels; None: by the size of the image.
        most: most boxes drawn, those with the highest scores; a line at the bottom tells how many there are.

    Returns:
        np.ndarray: ``(f H, f W, 3)`` uint8 RGB with the enlargement factor f.

    Raises:
        ValueError: lengths differ, a box is not four finite numbers, or ``image`` has another shape or type.
    """
    scores_known = scores is not None
    scores = list(scores) if scores_known else [0.0] * len(names)
    if not len(boxes) == len(names) == len(scores):
        raise ValueError(f'{len(boxes)} boxes, {len(names)} names and {len(scores)} scores; the numbers must agree')
    boxes = np.asarray(boxes, dtype=np.float64)
    if len(names) and (boxes.shape[1:] != (4,) or not np.isfinite(boxes).all()):
        raise ValueError(f'boxes have shape {boxes.shape} or values that are not finite; expected (n, 4) numbers')
    class_names = list(dict.fromkeys(names)) if class_names is None else list(class_names)
    enlarged, factor = enlarge(image)
    picture = Image.fromarray(enlarged)
    side = max(picture.size)
    draw = ImageDraw.Draw(picture)
    placed: list[Rectangle] = []
    order = sorted(range(len(names)), key=lambda i: -scores[i])[:most]
    face = _fitting_font(min(max(14, round(side / 50)), 40), [names[i] for i in order], scores_known, picture.size)
    thickness = thickness or max(1 if len(order) > _CROWD else 2, round(side / (480 if len(order) > _CROWD else 240)))
    width = 0.5 * picture.width - (face.getlength(' 0.00') if scores_known else 0)
    room = _LABELS * picture.width * picture.height
    shown = fit_names([*class_names, *names], face, width)
    for i in reversed(order):  # the highest score on top
        _outline(draw, tuple(factor * boxes[i]), class_colour(names[i], class_names), thickness)
    for i in order:
        score = f' {scores[i]:.2f}' if scores_known else ''
        text = (shown[names[i]] + score).lstrip()
        if not text:
            continue
        size = face.getlength(text) + 8, face.size + 6
        place = place_label(tuple(factor * boxes[i]), size, picture.size, placed)
        area = size[0] * size[1]
        if placed and (area > room or sum(_overlap(place, other) for other in placed) > _HIDDEN * area):
            continue
        placed.append(place)
        room -= area
        colour = class_colour(names[i], class_names)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
        draw.text((place[0] + 4, place[1] + 1), text, font=face, fill=readable_on(colour))
    if len(order) < len(names):
        _write_below(draw, f'the {len(order)} best of {len(names)} boxes', picture.size)
    return np.array(picture)


def enlarge(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Enlarge an image ``(H, W, 3)`` of less than 480 pixels by an integer factor; returns it and the factor.

    Raises:
        ValueError: ``image`` has another shape or type.
    """
    longest = max(image.shape[:2], default=0)
    factor = -(-_LEAST_SIDE // longest) if 0 < longest < _LEAST_SIDE else 1
    return fit_image(image, factor * image.shape[0], factor * image.shape[1]), factor


def _fitting_font(size: int, names: Sequence[str], scored: bool, picture: tuple[int, int]) -> ImageFont.FreeTypeFont:
    """Font of at most ``size`` pixels, smaller if the labels would take too much of the picture."""
    face = font(size, bold=True)
    score = face.getlength(' 0.00') if scored else 0
    area = sum((min(face.getlength(name), picture[0] / 2) + score + 8) * (size + 6) for name in names)
    room = _LABELS * picture[0] * picture[1]
    return face if area <= room else font(max(min(size, _LEAST_FONT), int(size * (room / area) ** 0.5)), bold=True)


def _write_below(draw: ImageDraw.ImageDraw, text: str, picture: tuple[int, int]) -> None:
    face = font(14)
    width, height = face.getlength(text) + 8, face.size + 6
    draw.rectangle((0, picture[1] - height, width - 1, picture[1] - 1), fill=PAPER)
    draw.text((4, picture[1] - height + 1), text, font=face, fill=INK)


def place_label(
    box: Rectangle, size: tuple[float, float], picture: tuple[int, int], placed: Sequence[Rectangle]
) -> Rectangle:
    """Place a label at a corner of its box, else along its sides, where it overlaps other labels least.

    Args:
        box: ``(x1, y1, x2, y2)``.
        size: width and height of the label.
        picture: width and height of the drawing, inside which the label stays.
        placed: rectangles of the labels placed so far.

    Returns:
        The label's rectangle.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    rows = [y1 - height, y1, y2, y2 - height]
    inner = int((y2 - y1) // height)
    rows += [y1 + k * height for k in range(1, min(inner, 20))]
    rows += [y1 - k * height for k in (2, 3)] + [y2 + k * height for k in (1, 2)]
    best, least = None, float('inf')
    for y in rows:
        for x in (x1, x2 - width):
            left = max(0.0, min(x, picture[0] - width))
            top = max(0.0, min(y, picture[1] - height))
            place = tuple(float(round(value)) for value in (left, top, left + width, top + height))
            covered = sum(_overlap(place, other) for other in placed)
            if covered < least:
                best, least = place, covered
            if not covered:
                return place
    return best


def _overlap(a: Rectangle, b: Rectangle) -> float:
    """Intersection area of two rectangles."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outline(draw: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, thickness: int) -> None:
    x1, y1 = (round(value) for value in box[:2])
    # the last pixel inside the box
    x2, y2 = max(x1, round(box[2]) - 1), max(y1, round(box[3]) - 1)
    # a light border separates the line from a background of its colour
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=PAPER, width=1)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=thickness)


def readable_on(colour: Colour) -> Colour:
    """Light or dark text colour, whichever has more contrast to ``colour``."""
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return INK if brightness > 140 else PAPER
