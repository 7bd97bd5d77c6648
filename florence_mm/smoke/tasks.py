"""Generated data of tasks: a bright square in each picture, with its name, box, outline and corners."""

import json
from pathlib import Path
from typing import Any

from .detection import write_annotations
from .pictures import write_pictures
from .stand_ins import register_smoke_data

_NAME, _PHRASE = 'square', 'the bright square'
# of the square: the top left quarter of the picture
_BOX = [0.0, 0.0, 0.5, 0.5]
_CORNERS = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]
# height and width of the generated pictures
_HEIGHT, _WIDTH = 80, 96
_PIXELS = {'x': 0, 'y': 0, 'width': _WIDTH // 2, 'height': _HEIGHT // 2}

#: A row of each kind of answer.
_ROWS: tuple[dict[str, Any], ...] = (
    {'task': 'caption', 'answers': ['a bright square', 'a square in the corner']},
    {'task': 'detection', 'regions': [{'text': _NAME, 'boxes': [_BOX]}]},
    {'task': 'referring_segmentation', 'text': _PHRASE, 'regions': [{'polygons': [_CORNERS]}]},
    {'task': 'phrase_grounding', 'text': _PHRASE, 'regions': [{'text': _PHRASE, 'boxes': [_BOX]}]},
    {'task': 'region_category', 'region': _BOX, 'answer': _NAME},
    {'task': 'ocr_with_region', 'regions': [{'text': '1', 'quad': _CORNERS}]},
)


@register_smoke_data('TaskManifest')
def task_manifest(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a file with a row of each kind of answer."""
    names = write_pictures(folder / 'images', count, (_HEIGHT, _WIDTH))
    lines = [json.dumps({'image': names[i % count], **row}) + '\n' for i, row in enumerate(_ROWS)]
    (folder / 'tasks.jsonl').write_text(''.join(lines))
    return {**dataset, **_files(folder, 'tasks.jsonl')}


@register_smoke_data('CocoTasks')
def coco_tasks(dataset: dict, folder: Path, count: int) -> dict:
    """Generate instances, or captions, in COCO's format."""
    write_annotations(folder, count, [_NAME, 'spot', 'dot'], 3)
    if 'caption' in str(dataset.get('task')).lower():
        content = json.loads((folder / 'annotations.json').read_text())
        captions = [{'id': image['id'], 'image_id': image['id'], 'caption': _PHRASE} for image in content['images']]
        (folder / 'annotations.json').write_text(json.dumps({**content, 'annotations': captions}))
    return {**dataset, **_files(folder, 'annotations.json')}


@register_smoke_data('RefCocoTasks')
def refcoco_tasks(dataset: dict, folder: Path, count: int) -> dict:
    """Generate instances, and references to the largest object of each picture."""
    write_annotations(folder, count, [_NAME, 'spot', 'dot'], 3)
    largest = {}
    for item in json.loads((folder / 'annotations.json').read_text())['annotations']:
        largest.setdefault(item['image_id'], item['id'])
    sentences = [{'sent': _PHRASE}, {'sent': 'the largest square'}]
    refs = [
        {'ref_id': i, 'ann_id': id_, 'image_id': image, 'split': dataset.get('split'), 'sentences': sentences}
        for i, (image, id_) in enumerate(largest.items())
    ]
    (folder / 'refs.json').write_text(json.dumps(refs))
    return {**dataset, **_files(folder, 'annotations.json'), 'ref_file': 'refs.json'}


@register_smoke_data('Flickr30kEntitiesTasks')
def flickr30k_entities_tasks(dataset: dict, folder: Path, count: int) -> dict:
    """Generate captions with marked phrases, and the boxes of their entities."""
    folders = {'sentence_folder': folder / 'Sentences', 'box_folder': folder / 'Annotations'}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    ids = []
    for name in write_pictures(folder / 'images', count, (_HEIGHT, _WIDTH)):
        picture = folder / 'images' / name
        picture.rename(picture.with_suffix('.jpg'))
        ids.append(picture.stem)
        (folders['sentence_folder'] / f'{ids[-1]}.txt').write_text(f'Look at [/EN#1/other {_PHRASE}] .\n')
        size = f'<size><width>{_WIDTH}</width><height>{_HEIGHT}</height></size>'
        corners = f'<xmin>1</xmin><ymin>1</ymin><xmax>{_WIDTH // 2}</xmax><ymax>{_HEIGHT // 2}</ymax>'
        item = f'<object><name>1</name><bndbox>{corners}</bndbox></object>'
        (folders['box_folder'] / f'{ids[-1]}.xml').write_text(f'<annotation>{size}{item}</annotation>')
    (folder / 'ids.txt').write_text('\n'.join(ids))
    return {**dataset, **_files(folder, 'ids.txt'), **{key: path.name for key, path in folders.items()}}


@register_smoke_data('VisualGenomeTasks')
def visual_genome_tasks(dataset: dict, folder: Path, count: int) -> dict:
    """Generate described regions, and the list of the pictures."""
    images, described = [], []
    for id_, name in enumerate(write_pictures(folder / 'images' / 'VG_100K', count, (_HEIGHT, _WIDTH))):
        images.append({'image_id': id_, 'url': f'https://host/VG_100K/{name}', 'width': _WIDTH, 'height': _HEIGHT})
        described.append({'id': id_, 'regions': [{'region_id': id_, **_PIXELS, 'phrase': _PHRASE}]})
    (folder / 'image_data.json').write_text(json.dumps(images))
    (folder / 'regions.json').write_text(json.dumps(described))
    return {**dataset, **_files(folder, 'regions.json'), 'image_file': 'image_data.json'}


@register_smoke_data('SceneTextTasks')
def scene_text_tasks(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a word in each picture, as TextOCR has them."""
    images, words = {}, {}
    for id_, name in enumerate(write_pictures(folder / 'images', count, (_HEIGHT, _WIDTH))):
        images[str(id_)] = {'id': id_, 'file_name': name, 'width': _WIDTH, 'height': _HEIGHT}
        images[str(id_)]['set'] = dataset.get('split') or 'train'
        points = [value * side for corner in _CORNERS for value, side in zip(corner, (_WIDTH, _HEIGHT), strict=True)]
        box = [_PIXELS[key] for key in ('x', 'y', 'width', 'height')]
        words[f'{id_}_1'] = {'image_id': id_, 'bbox': box, 'points': points, 'utf8_string': 'square'}
    (folder / 'words.json').write_text(json.dumps({'imgs': images, 'anns': words}))
    return {**dataset, **_files(folder, 'words.json')}


def _files(folder: Path, ann_file: str) -> dict:
    return {'ann_file': ann_file, 'data_root': str(folder), 'data_prefix': 'images'}
