"""Crops of annotated boxes with their class names, for training two towers on regions."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from florence_mm.datasets.reading import load_checked
from florence_mm.datasets.transforms.loading import LoadImage
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.coco import clip_box, is_ignored, read_coco_file
from florence_mm.ops.regions import crop_regions
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.utils.numbers import is_finite, is_whole
from florence_mm.utils.progress import ProgressLog

LARGEST_CROP = 8192
LARGEST_CONTEXT = 100
# fills the part of a crop outside the image: the mean that the towers subtract, as in zero-shot detection
_MEAN = (123.675, 116.28, 103.53)


def write_box_crops(
    ann_file: str | Path,
    image_folder: str | Path,
    out: str | Path,
    size: int = 224,
    context: tuple[float, float] = (1.0, 1.5),
    seed: int = 0,
) -> dict[str, int]:
    """Crop each box to a square PNG, and list the crops in ``OUT.jsonl`` with the columns image and class.

    Args:
        ann_file: COCO-format annotations; crowds and boxes marked ``ignore`` are left out.
        image_folder: folder that its file names are relative to.
        out: folder of the crops, each named ``ANNOTATION_ID.png``.
        size: side of a crop in pixels.
        context: side of the cropped area as a multiple of the box's, drawn uniformly from this range.
        seed: seed of that draw.

    Returns:
        numbers of boxes ``written``, and left out as ``crowd`` (or to ignore) or ``unusable`` (no area in the image).

    Raises:
        DataError: the annotations or an image are unusable, an image has another size than they say, or no box is left.
        UsageError: ``size`` or ``context`` is out of range, or an output is one of the inputs.
    """
    if not is_whole(size) or not 1 <= size <= LARGEST_CROP:
        raise UsageError(f'size={size!r} is no side of a crop in pixels; expected 1 to {LARGEST_CROP}')
    right = isinstance(context, Sequence) and len(context) == 2 and all(map(is_finite, context))
    if not right or not 0 < context[0] <= context[1] <= LARGEST_CONTEXT:
        raise UsageError(
            f'context={context!r} must be a range of numbers above 0 up to {LARGEST_CONTEXT}, the smaller first'
        )
    if not is_whole(seed):
        raise UsageError(f'seed={seed!r} must be a whole number')
    refuse_overwriting(out, [image_folder], 'the folder of the crops')
    refuse_overwriting(Path(out).with_name(f'{Path(out).name}.jsonl'), [ann_file], 'the list of the crops')
    content = read_coco_file(ann_file)
    names = {category['id']: category['name'] for category in content['categories']}
    boxes: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        boxes.setdefault(annotation['image_id'], []).append(annotation)
    out, draw, load = Path(out), random.Random(seed), LoadImage()
    fill = torch.tensor(_MEAN).view(3, 1, 1)
    counts = {'written': 0, 'crowd': 0, 'unusable': 0}
    lines = []
    progress = ProgressLog(f'cropping the boxes of {ann_file}', len(content['images']))
    for number, image in enumerate(content['images'], 1):
        found = boxes.get(image['id'], [])
        pixels = None
        for annotation in found:
            factor = draw.uniform(*context)
            corners, problem = clip_box(annotation['bbox'], image['width'], image['height'])
            if is_ignored(annotation) or problem in ('outside', 'no area'):
                counts['crowd' if is_ignored(annotation) else 'unusable'] += 1
                continue
            if pixels is None:
                path = {'img_path': str(Path(image_folder) / image['file_name'])}
                size_in_file = image['height'], image['width']
                loaded, _ = load_checked([load], path, f'{ann_file}, image {image["id"]}', size_in_file)
                pixels = torch.from_numpy(np.ascontiguousarray(loaded['img'])).permute(2, 0, 1).float()  # (3, H, W)
            crops, inside = crop_regions(pixels, torch.tensor([corners]), (size, size), factor)
            crop = (crops + (1 - inside) * fill)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
            name = f'{annotation["id"]:09d}.png'
            write_atomic(out / name, cv2.imencode('.png', crop[..., ::-1])[1].tobytes())
            lines.append(json.dumps({'image': f'{out.name}/{name}', 'class': names[annotation['category_id']]}))
            counts['written'] += 1
        progress.update(number)
    if not lines:
        raise DataError(f'{ann_file} has no box to crop; expected annotations with an area inside their image')
    write_atomic(out.with_name(f'{out.name}.jsonl'), '\n'.join(lines) + '\n')
    return counts
