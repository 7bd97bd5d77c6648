"""Drawing of outlines, such as polygons of objects and quadrilaterals around texts in pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .canvas import PAPER, Colour, fit_names, font
from .detections import class_colour, enlarge, place_label, readable_on

_OPACITY = 90  # of 255, of what is inside

#: Parts of an outline, each of which has its corners ``(x, y)`` in pixels.
Outline = Sequence[Sequence[Sequence[float]]]


def draw_outlines(
    image: np.ndarray, outlines: Sequence[Outline], names: Sequence[str], scores: Sequence[float | None] | None = None
) -> np.ndarray:
    """Draw outlines with names and scores on an image, each filled with its translucent colour.

    An image of less than 480 pixels is enlarged by an integer factor, so that labels are readable.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB.
        outlines: n outlines of one or more parts.
        names: n names; outlines of one name have one colour, and those without a name have no label.
        scores: n scores from 0 to 1; None: only names.

    Returns:
        np.ndarray: ``(f H, f W, 3)`` uint8 RGB with the enlargement factor f.

    Raises:
        ValueError: lengths differ, or ``image`` has another shape or type.
    """
    scores = [None] * len(names) if scores is None else list(scores)
    if not len(outlines) == len(names) == len(scores):
        raise ValueError(
            f'{len(outlines)} outlines, {len(names)} names and {len(scores)} scores; the numbers must agree'
        )
    enlarged, factor = enlarge(image)
    picture = Image.fromarray(enlarged).convert('RGBA')
    known = list(dict.fromkeys(names))
    if len(known) == 1 and len(names) > 1:  # without names, or of one name, each has a colour of its own
        known = [str(number) for number in range(len(names))]
        colours = [class_colour(number, known) for number in known]
    else:
        colours = [class_colour(name, known) for name in names]
    layer = Image.new('RGBA', picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    thickness = max(2, round(max(picture.size) / 240))
    scaled = [[[(factor * x, factor * y) for x, y in part] for part in outline] for outline in outlines]
    for outline, colour in zip(scaled, colours, strict=True):
        for part in outline:
            draw.polygon(part, fill=(*colour, _OPACITY))
            draw.line([*part, part[0]], fill=(*PAPER, 255), width=thickness + 2, joint='curve')
            draw.line([*part, part[0]], fill=(*colour, 255), width=thickness, joint='curve')
    picture = Image.alpha_composite(picture, layer).convert('RGB')
    _label(picture, scaled, names, scores, colours)
    return np.array(picture)


def _label(
    picture: Image.Image,
    outlines: Sequence[Outline],
    names: Sequence[str],
    scores: Sequence[float | None],
    colours: Sequence[Colour],
) -> None:
    draw, face, placed = ImageDraw.Draw(picture), font(min(max(14, round(max(picture.size) / 50)), 40), bold=True), []
    shown = fit_names(names, face, 0.5 * picture.width)
    for outline, name, score, colour in zip(outlines, names, scores, colours, strict=True):
        text = ' '.join(filter(None, (shown[name], '' if score is None else f'{score:.2f}')))
        if not text:
            continue
        xs, ys = zip(*(point for part in outline for point in part), strict=True)
        size = face.getlength(text) + 8, face.size + 6
        place = place_label((min(xs), min(ys), max(xs), max(ys)), size, picture.size, placed)
        placed.append(place)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
        draw.text((place[0] + 4, place[1] + 1), text, font=face, fill=readable_on(colour))
