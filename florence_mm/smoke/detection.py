"""Generated detection data: a few images, each with an object of each size class of COCO."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS as ROOT_DATASETS

from .pictures import CLASS_NAMES, write_pictures
from .stand_ins import add_keys, register_smoke_data

# pixels; an object is large from 96x96 on
_SIDE = 160
# x, y, width, height: large (covering the corner of the bright square), medium and small in COCO's sense
_BOXES = ([0, 0, 100, 100], [100, 100, 48, 48], [110, 20, 24, 24])
# longest side of the model's input
_LONGEST = 96
_SCALES = ('scale', 'scales', 'crop_size', 'img_scale')


@register_smoke_data('CocoDataset', 'LVISV1Dataset', 'LVISV05Dataset', 'Objects365V1Dataset', 'Objects365V2Dataset')
def coco_detection(dataset: dict, folder: Path, count: int) -> dict:
    """Generate COCO annotations with boxes and masks, in the first classes of the data set."""
    cls = ROOT_DATASETS.get(dataset['type'] if '.' in dataset['type'] else f'mmdet.{dataset["type"]}')
    classes = (dataset.get('metainfo') or {}).get('classes') or cls.METAINFO['classes']
    write_annotations(folder, count, list(classes), len(classes))
    return {**dataset, **_files(folder)}


@register_smoke_data('DetectionDataset')
def detection(dataset: dict, folder: Path, count: int) -> dict:
    """Generate COCO annotations with as many classes as the model has, and reduce image sizes to 96 pixels.

    Classes have frequencies as in LVIS, and in one image not all classes are annotated. The keys that
    :func:`set_smoke_classes` added to the config are removed.
    """
    dataset = dict(dataset)
    wanted, names = dataset.pop('smoke_num_classes', None), dataset.pop('smoke_names', [])
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        names = [*names, *CLASS_NAMES]
        classes = [*names, *(f'class {number}' for number in range(len(names), wanted or 0))][:wanted]
    held_out = [name for name in dataset.get('held_out', ()) if name not in classes]
    write_annotations(folder, count, [*classes, *held_out], len(classes))
    if wanted is not None:
        _make_federated(folder / 'annotations.json')
    return {**dataset, **_files(folder), 'pipeline': small_pictures(dataset.get('pipeline', ()))}


def write_annotations(folder: Path, count: int, classes: list[str], num_used: int) -> None:
    """Write images and ``annotations.json``; boxes have the first ``num_used`` classes in turn."""
    images, annotations = [], []
    for index, file in enumerate(write_pictures(folder / 'images', count, (_SIDE, _SIDE))):
        images.append({'id': index, 'file_name': file, 'height': _SIDE, 'width': _SIDE})
        for x, y, width, height in _BOXES:
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index,
                    'category_id': len(annotations) % num_used + 1,
                    'bbox': [x, y, width, height],
                    'area': width * height,
                    'segmentation': [outline],
                    'iscrowd': 0,
                }
            )
    categories = [{'id': index, 'name': name, 'frequency': 'rcf'[index % 3]} for index, name in enumerate(classes, 1)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content))


def _make_federated(path: Path) -> None:
    """Mark, as LVIS does, that in the first image only its own classes and the first one are annotated."""
    content = json.loads(path.read_text())
    content['images'][0]['neg_category_ids'] = [1]
    path.write_text(json.dumps(content))


def _files(folder: Path) -> dict:
    return {'ann_file': 'annotations.json', 'data_root': str(folder), 'data_prefix': {'img': 'images/'}}


def set_smoke_classes(dataset: Any, model: Any, evaluator: Any = None) -> Any:
    """Add the required classes to the config of a detection data set, also inside wrappers, for :func:`detection`.

    These are their number, that of the detector's head (a model around a detector, ``detector=dict(...)``, takes any
    number), and the names of classes that a metric reports separately (``subsets``).
    """
    head = model.get('bbox_head') if isinstance(model, Mapping) else None
    number = head.get('num_classes') if isinstance(head, Mapping) else None
    keys = {'smoke_num_classes': number, 'smoke_names': _subset_names(evaluator)}
    keys = {key: value for key, value in keys.items() if value}
    return add_keys(dataset, 'DetectionDataset', keys, unless='class_agnostic')


def _subset_names(evaluator: Any) -> list[str]:
    if isinstance(evaluator, (list, tuple)):
        return [name for metric in evaluator for name in _subset_names(metric)]
    if not isinstance(evaluator, Mapping):
        return []
    names = [name for subset in (evaluator.get('subsets') or {}).values() for name in subset]
    return list(dict.fromkeys(names + _subset_names(evaluator.get('metrics'))))


def small_pictures(pipeline: Any) -> list:
    """Divide all sizes in pixels of a pipeline by the same number, so that the largest is 96."""
    largest = max(_pixels(pipeline), default=0)
    return _divide(pipeline, max(largest / _LONGEST, 1.0), False)


def _pixels(node: Any, is_size: bool = False) -> list[int]:
    if isinstance(node, Mapping):
        return [size for key, value in node.items() for size in _pixels(value, key in _SCALES)]
    if isinstance(node, (list, tuple)):
        return [size for item in node for size in _pixels(item, is_size)]
    return [node] if is_size and isinstance(node, int) else []


def _divide(node: Any, by: float, is_size: bool) -> Any:
    if isinstance(node, Mapping):
        return {key: _divide(value, by, key in _SCALES) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_divide(item, by, is_size) for item in node)
    return max(round(node / by), 1) if is_size and isinstance(node, int) else node
