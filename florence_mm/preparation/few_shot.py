"""Few-shot subsets of COCO-format files, the same for everybody."""

import hashlib
import json
from collections import Counter
from pathlib import Path

from mmengine.logging import print_log

from florence_mm.errors import DataError
from florence_mm.formats.coco import is_ignored, read_coco_file
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.utils.numbers import is_whole


def few_shot_images(content: dict, shots: int, seed: int = 0) -> list[int]:
    """Choose images so that each class occurs in at least ``shots`` of them, or in all that show it.

    Images are ranked by a hash of the seed and their file name. Classes are processed from the rarest (ties by name):
    a class adds images that show it, by rank, until ``shots`` of the chosen images show it, including those chosen for
    earlier classes. A crowd or a box marked ``ignore`` does not count as showing its class.

    Args:
        content (dict): A COCO-format file.
        shots (int): Images per class.
        seed (int): Another seed chooses other images.

    Returns:
        list[int]: Image ids in the order of the file.
    """
    files = {image['id']: image['file_name'] for image in content['images']}

    def rank(image: int) -> bytes:
        return hashlib.blake2b(f'{seed}:{files[image]}'.encode()).digest()

    showing: dict[int, set[int]] = {category['id']: set() for category in content['categories']}
    classes: dict[int, set[int]] = {image: set() for image in files}
    for item in content['annotations']:
        if not is_ignored(item):
            showing[item['category_id']].add(item['image_id'])
            classes[item['image_id']].add(item['category_id'])
    names = {category['id']: category['name'] for category in content['categories']}
    chosen: set[int] = set()
    counts: Counter[int] = Counter()
    for category in sorted(showing, key=lambda id_: (len(showing[id_]), names[id_])):
        for image in sorted(showing[category] - chosen, key=rank):
            if counts[category] >= shots:
                break
            chosen.add(image)
            counts.update(classes[image])
    return [image for image in files if image in chosen]


def write_few_shot(ann_file: str | Path, out: str | Path, shots: int, seed: int = 0) -> dict[str, int]:
    """Write the subset chosen by :func:`few_shot_images`, with all boxes of its images and all classes.

    Returns:
        dict[str, int]: Class name to number of images that show it. Classes with fewer than ``shots`` are logged.

    Raises:
        FileNotFoundError, DataError: the file is missing or unusable.
        UsageError: ``out`` is ``ann_file``.
    """
    if not is_whole(shots) or shots < 1:
        raise DataError(f'{shots!r} images per class were asked for; expected a whole number, at least 1')
    if not is_whole(seed):
        raise DataError(f'seed={seed!r} must be a whole number')
    refuse_overwriting(out, [ann_file])
    content = read_coco_file(ann_file)
    chosen = set(few_shot_images(content, shots, seed))
    if not chosen:
        raise DataError(f'{ann_file} has no boxes to choose images by')
    images = [image for image in content['images'] if image['id'] in chosen]
    annotations = [item for item in content['annotations'] if item['image_id'] in chosen]
    pairs = {(item['category_id'], item['image_id']) for item in annotations if not is_ignored(item)}
    counts = Counter(category for category, _ in pairs)
    names = {category['id']: category['name'] for category in content['categories']}
    fewer = [f'{names[id_]} ({counts[id_]})' for id_ in names if counts[id_] < shots]
    if fewer:
        print_log(f'{ann_file}: fewer than {shots} images show {", ".join(fewer)}', 'current')
    subset = {**content, 'images': images, 'annotations': annotations}
    # other parts of the file may have halves of characters, which only escapes can hold
    write_atomic(out, json.dumps(subset) + '\n')
    return {name: counts[id_] for id_, name in names.items()}
