"""Boxes of a detection data set as pairs of a picture and a class name, for training two towers on regions."""

import json
import random
from pathlib import Path

import cv2
import numpy as np
import torch

from ..ops.regions import crop_regions
from ..utils.coco_file import clip_box, read_coco_file
from ..utils.files import write_atomic
from ..utils.progress import ProgressLog
from .errors import DataError
from .scene_facts import colour_name, with_article
from .transforms.loading import LoadImage

# behind what is outside the picture: the mean that towers take off, as in zero-shot detection
_MEAN = (123.675, 116.28, 103.53)


def write_box_crops(
    ann_file: str | Path,
    image_folder: str | Path,
    out: str | Path,
    size: int = 224,
    context: tuple[float, float] = (1.0, 1.5),
    seed: int = 0,
    captions: bool = False,
) -> dict[str, int]:
    """Write each box as a square PNG, and ``OUT.jsonl`` beside the folder ``out`` with the columns image and class.

    Args:
        ann_file: COCO-format annotations; crowds are left out.
        image_folder: where its file names start.
        out: folder of the crops, one ``ANNOTATION_ID.png`` each.
        size: side of a crop in pixels.
        context: side of what is cropped in sides of the box, drawn evenly from this range.
        seed: of that draw.
        captions: also write ``OUT_captions.jsonl`` with the columns image and text, ``'a red five'``, from the ink's
            ``colour`` that annotations of the embedded scenes have; where no name fits it, ``'a five'``.

    Returns:
        how many boxes were ``written``, and left out as ``crowd`` or ``unusable`` (no area in the picture).

    Raises:
        DataError: the annotations or a picture are unusable, no box is left, or captions are asked for and there is no
            colour.
    """
    content = read_coco_file(ann_file)
    names = {category['id']: category['name'] for category in content['categories']}
    boxes: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        boxes.setdefault(annotation['image_id'], []).append(annotation)
    out, draw, load = Path(out), random.Random(seed), LoadImage()
    fill = torch.tensor(_MEAN).view(3, 1, 1)
    counts = {'written': 0, 'crowd': 0, 'unusable': 0}
    lines, described = [], []
    progress = ProgressLog(f'cropping the boxes of {ann_file}', len(content['images']))
    for number, image in enumerate(content['images'], 1):
        found = boxes.get(image['id'], [])
        pixels = None
        for annotation in found:
            factor = draw.uniform(*context)
            corners, problem = clip_box(annotation['bbox'], image['width'], image['height'])
            if annotation.get('iscrowd') or problem in ('outside', 'no area'):
                counts['crowd' if annotation.get('iscrowd') else 'unusable'] += 1
                continue
            if pixels is None:
                picture = load({'img_path': str(Path(image_folder) / image['file_name'])})['img']
                pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()  # (3, H, W)
            crops, inside = crop_regions(pixels, torch.tensor([corners]), (size, size), factor)
            crop = (crops + (1 - inside) * fill)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
            name = f'{annotation["id"]:09d}.png'
            write_atomic(out / name, cv2.imencode('.png', crop[..., ::-1])[1].tobytes())
            row = {'image': f'{out.name}/{name}'}
            lines.append(json.dumps({**row, 'class': names[annotation['category_id']]}))
            if captions:
                described.append(json.dumps({**row, 'text': _caption(annotation, names, ann_file)}))
            counts['written'] += 1
        progress.update(number)
    if not lines:
        raise DataError(f'{ann_file} has no box to crop; expected annotations with an area inside their picture')
    write_atomic(out.with_name(f'{out.name}.jsonl'), '\n'.join(lines) + '\n')
    if captions:
        write_atomic(out.with_name(f'{out.name}_captions.jsonl'), '\n'.join(described) + '\n')
    return counts


def _caption(annotation: dict, names: dict[int, str], ann_file: str | Path) -> str:
    if 'colour' not in annotation:
        raise DataError(
            f'{ann_file}: annotation {annotation["id"]} has no colour to make a caption of, as those of '
            'prepare_scenes.py have; leave captions out'
        )
    colour, name = colour_name(annotation['colour']), names[annotation['category_id']]
    return with_article(f'{colour} {name}' if colour else name)
