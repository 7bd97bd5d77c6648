"""COCO-format files to merge."""

import json
import random

from florence_mm.preparation.merging.sources import make_plan


def coco(path, images, boxes, categories, shuffle=None):
    """A COCO-format file: images id -> (name, width, height, further keys), boxes (image, category, x, y, w, h)."""
    content = {
        'images': [
            {'id': id_, 'file_name': name, 'width': w, 'height': h, **more}
            for id_, (name, w, h, more) in images.items()
        ],
        'annotations': [
            {'id': n, 'image_id': image, 'category_id': category, 'bbox': box, 'iscrowd': crowd}
            for n, (image, category, box, crowd) in enumerate(boxes)
        ],
        'categories': [{'id': id_, 'name': name} for id_, name in categories.items()],
    }
    if shuffle is not None:
        rng = random.Random(shuffle)
        for items in content.values():
            rng.shuffle(items)
            items[:] = [dict(rng.sample(list(item.items()), len(item))) for item in items]
        content = dict(reversed(content.items()))
    path.write_text(json.dumps(content))
    return str(path)


def merged(result):
    return json.loads(result.out.read_text())


def pair(tmp_path, first, second, **kwargs):
    """Two sources of the collection "c" with one picture each."""
    for name, boxes in (('a', first), ('b', second)):
        file, size, more = kwargs.get(name, ('p.jpg', (100, 100), {}))
        coco(tmp_path / f'{name}.json', {1: (file, *size, more)}, [(1, 1, b, 0) for b in boxes], {1: 'cat'})
    return make_plan(
        [{'name': n, 'format': 'coco', 'ann_file': str(tmp_path / f'{n}.json'), 'images': 'c'} for n in 'ab']
    )
