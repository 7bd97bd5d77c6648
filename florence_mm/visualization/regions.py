"""Drawing of regions with texts: boxes, outlines and quadrilaterals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .detections import draw_detections
from .outlines import draw_outlines

_COLOURS = ('answer', '')  # of the asked box, which has no name, the second one, as answers begin with the first


def draw_regions(
    image: np.ndarray, regions: Sequence[Mapping[str, Any]], asked: Sequence[float] | None = None
) -> np.ndarray:
    """Draw regions on an image, which is enlarged if it is small.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 RGB.
        regions: a dict each with ``text``, perhaps ``score``, and ``box`` (``x0, y0, x1, y1``), ``quad`` (four corners)
            or ``polygons`` (of each part the corners) in pixels.
        asked: the box that a question is about, in pixels.

    Returns:
        np.ndarray: ``(f H, f W, 3)`` uint8 RGB with the enlargement factor f.
    """
    height = image.shape[0]
    boxed = [one for one in regions if one.get('box')]
    outlined = [one for one in regions if one.get('quad') or one.get('polygons')]
    if asked is not None:
        image = draw_detections(image, [asked], [''], class_names=_COLOURS)
    if outlined:
        factor = image.shape[0] / height
        outlines = [one.get('polygons') or [one['quad']] for one in outlined]
        scaled = [[[(factor * x, factor * y) for x, y in part] for part in outline] for outline in outlines]
        image = draw_outlines(image, scaled, [one['text'] for one in outlined], [one.get('score') for one in outlined])
    if boxed:
        factor = image.shape[0] / height
        boxes = [[factor * value for value in one['box']] for one in boxed]
        scores = [one.get('score') for one in boxed]
        image = draw_detections(image, boxes, [one['text'] for one in boxed], None if None in scores else scores)
    return image


def regions_in_pixels(regions: Iterable[Any], width: int, height: int) -> list[dict[str, Any]]:
    """Regions of a target, with fractions, as :func:`draw_regions` takes them, each box a region of its own.

    Args:
        regions: :class:`~florence_mm.language.regions.Region` objects.
        width: width of the image.
        height: its height.
    """

    def points(corners: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * width, y * height) for x, y in corners]

    found: list[dict[str, Any]] = []
    for region in regions:
        says = {'text': region.text, 'score': region.score}
        found += [says | {'box': [x0 * width, y0 * height, x1 * width, y1 * height]} for x0, y0, x1, y1 in region.boxes]
        if region.quad is not None:
            found.append(says | {'quad': points(region.quad)})
        if region.polygons:
            found.append(says | {'polygons': [points(part) for part in region.polygons]})
    return found
