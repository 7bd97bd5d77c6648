"""Drawing of the samples that a data set gives to a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .canvas import INK, PAPER, Colour, fit_image, fit_text, font, wrap_text
from .regions import regions_in_pixels

_LINE = 17
_BOX_COLOURS = ((9, 105, 218), (188, 76, 0), (26, 127, 55), (130, 80, 223), (207, 34, 46), (154, 103, 0))


def sample_image(data: Mapping, bgr: bool = False) -> np.ndarray:
    """Take the image out of a pipeline's output, as ``(H, W, 3)`` uint8 RGB.

    Args:
        data (Mapping): A packed sample with ``inputs``: ``(C, H, W)``; ``(N, C, H, W)``, the first is taken; or
            ``(N, C, T, H, W)``, of which the middle frame of the first clip is taken. Or a pipeline's dict with
            ``img (H, W, C)``. Values other than uint8 are scaled to 0 to 255.
        bgr (bool): Whether the channels are blue, green, red.

    Raises:
        ValueError: there is no such image.
    """
    image = data.get('inputs', data.get('img'))
    if isinstance(image, Mapping):  # several inputs by name, as of multimodal pipelines
        image = image.get('img', image.get('imgs'))
    if isinstance(image, (list, tuple)) and image:
        image = image[0]
    if isinstance(image, torch.Tensor):
        image = image.numpy()
        if image.ndim == 5:
            image = image[0, :, image.shape[2] // 2]  # (N, C, T, H, W) -> (C, H, W)
        if image.ndim == 4:
            image = image[0]  # (N, C, H, W) -> (C, H, W)
        if image.ndim == 3:
            image = image.transpose(1, 2, 0)  # (C, H, W) -> (H, W, C)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        found = f'shape {image.shape}' if isinstance(image, np.ndarray) else f'type {type(image).__name__}'
        raise ValueError(f'a sample with {sorted(data)} has no image to draw ({found}); expected inputs (C, H, W)')
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    image = np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3))
    return np.ascontiguousarray(image[..., ::-1] if bgr else image)


def sample_lines(sample: Any, class_names: Sequence[str] = ()) -> list[str]:
    """Describe a sample in lines of text: prompt, caption, class, label, number of boxes.

    Args:
        sample: The ``data_samples`` of a packed sample, of any OpenMMLab package.
        class_names (Sequence[str]): Names of the classes.
    """
    lines = []
    if 'prompt' in sample:
        lines.append(sample.prompt)
    if 'text' in sample:
        mark = ' (template)' if getattr(sample, 'augmented', False) else ''
        lines.append(f'{sample.text}{mark}')
    if 'gt_label' in sample:
        labels = sample.gt_label.reshape(-1).tolist()
        lines.append('class: ' + ', '.join(_class_name(label, class_names) for label in labels))
    texts = [text for text in sample.get('texts', []) if text != sample.get('text')]
    lines += [f'also: {text}' for text in texts]
    if 'label_key' in sample:
        lines.append(f'label {sample.label_key:016x}')
    if 'gt_instances' in sample:
        lines.append(f'{len(sample.gt_instances)} objects')
    return lines


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def draw_sample(data: Mapping, class_names: Sequence[str] = (), bgr: bool = False, size: int = 240) -> np.ndarray:
    """Draw a packed sample: the image with its boxes or regions, and below it the text of :func:`sample_lines`.

    Args:
        data (Mapping): A pipeline's output (see :func:`sample_image`).
        class_names (Sequence[str]): Names of the classes.
        bgr (bool): Whether the channels of the image are blue, green, red.
        size (int): Width and height into which the image is fitted.

    Returns:
        np.ndarray: ``(size + 76, size, 3)`` uint8 RGB.
    """
    image = sample_image(data, bgr)
    sample = data.get('data_samples')
    picture = Image.new('RGB', (size, size + 4 * _LINE + 8), PAPER)
    picture.paste(Image.fromarray(fit_image(image, size, size)), (0, 0))
    draw = ImageDraw.Draw(picture)
    if sample is not None and 'gt_instances' in sample and 'bboxes' in sample.gt_instances:
        _draw_boxes(draw, sample.gt_instances, class_names, image.shape[:2], size)
    if sample is not None and 'gt_target' in sample:
        _draw_target(draw, sample, image.shape[:2], size)
    face = font(12)
    lines: list[str] = []
    for text in sample_lines(sample, class_names) if sample is not None else []:
        lines += wrap_text(text, face, size, lines=2)
    for i, line in enumerate(lines[:4]):
        draw.text((0, size + 5 + _LINE * i), line, font=face, fill=INK)
    return np.array(picture)


def _draw_boxes(
    draw: ImageDraw.ImageDraw, instances: Any, class_names: Sequence[str], shape: tuple[int, int], size: int
) -> None:
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)  # (n, 4): x1, y1, x2, y2
    labels = instances.get('labels', torch.full((len(boxes),), -1))
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        if x2 > x1 and y2 > y1:
            name = _class_name(label, class_names) if label >= 0 else ''
            colour = _BOX_COLOURS[label % len(_BOX_COLOURS)]
            _draw_outline(draw, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], name, colour, shape, size)


def _draw_target(draw: ImageDraw.ImageDraw, sample: Any, shape: tuple[int, int], size: int) -> None:
    """Draw the regions of the answer to a task, and in ink the one that is asked about."""
    height, width = shape
    regions = regions_in_pixels(sample.gt_target.regions, width, height)
    names = list(dict.fromkeys(region['text'] for region in regions))
    if sample.get('prompt_region') is not None:
        x0, y0, x1, y1 = sample.prompt_region
        corners = [(x * width, y * height) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        _draw_outline(draw, corners, '', INK, shape, size)
    for region in regions:
        colour = _BOX_COLOURS[names.index(region['text']) % len(_BOX_COLOURS)]
        if 'box' in region:
            x0, y0, x1, y1 = region['box']
            parts = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]]
        else:
            parts = region.get('polygons') or [region['quad']]
        for number, part in enumerate(parts):
            _draw_outline(draw, part, '' if number else region['text'], colour, shape, size)


def _draw_outline(
    draw: ImageDraw.ImageDraw,
    corners: Sequence[tuple[float, float]],
    name: str,
    colour: Colour,
    shape: tuple[int, int],
    size: int,
) -> None:
    """Draw an outline in pixels of an image of ``shape`` (height, width) that is fitted into ``size``, and its name."""
    height, width = shape
    factor = min(size / height, size / width)
    left, top = (size - factor * width) / 2, (size - factor * height) / 2
    fitted = [(left + factor * x, top + factor * y) for x, y in corners]
    draw.line([*fitted, fitted[0]], fill=colour, width=2)
    if name:
        x, y = min(x for x, _ in fitted), min(y for _, y in fitted)
        name = fit_text(name, font(11), size)
        draw.rectangle((x, y, x + font(11).getlength(name) + 4, y + 14), fill=colour)
        draw.text((x + 2, y), name, font=font(11), fill=PAPER)
