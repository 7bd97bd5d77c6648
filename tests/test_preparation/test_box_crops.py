import json

import cv2
import numpy as np
import pytest

from florence_mm.errors import DataError
from florence_mm.preparation.box_crops import write_box_crops

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)  # RGB


def annotations(tmp_path, *boxes):
    (tmp_path / 'in').mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / 'in/a.png'), PICTURE[..., ::-1])
    rows = [
        {'id': i, 'image_id': 7, 'category_id': 1 + i % 2, 'area': 1, 'iscrowd': 0, **box}
        for i, box in enumerate(boxes)
    ]
    content = {
        'images': [{'id': 7, 'file_name': 'a.png', 'width': 60, 'height': 40}],
        'annotations': rows,
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }
    file = tmp_path / 'a.json'
    file.write_text(json.dumps(content))
    return file


def crop(tmp_path, number):
    return cv2.imread(str(tmp_path / f'out/{number:09d}.png'))[..., ::-1]


def test_crops_are_the_pixels_of_the_boxes(tmp_path):
    boxes = [{'bbox': [10, 4, 16, 16]}, {'bbox': [-8, 0, 16, 8]}, {'bbox': [1, 1, 9, 9], 'iscrowd': 1}]
    file = annotations(tmp_path, *boxes, {'bbox': [70, 0, 5, 5]})
    counts = write_box_crops(file, tmp_path / 'in', tmp_path / 'out', size=16, context=(1.0, 1.0))
    assert counts == {'written': 2, 'crowd': 1, 'unusable': 1}
    assert (crop(tmp_path, 0) == PICTURE[4:20, 10:26]).all()
    lines = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert lines == [
        {'image': 'out/000000000.png', 'class': 'cat'},
        {'image': 'out/000000001.png', 'class': 'dog'},
    ]


def test_context_reaches_over_the_edge_and_follows_the_seed(tmp_path):
    file = annotations(tmp_path, {'bbox': [0, 0, 16, 16]})
    write_box_crops(file, tmp_path / 'in', tmp_path / 'out', size=32, context=(2.0, 2.0))
    wide = crop(tmp_path, 0)
    assert (wide[8:, 8:] == PICTURE[:24, :24]).all()
    assert (wide[:8] == (124, 116, 104)).all() and (wide[:, :8] == (124, 116, 104)).all()
    seen = []
    for seed in (0, 0, 1):
        write_box_crops(file, tmp_path / 'in', tmp_path / 'out', size=32, seed=seed)
        seen.append((tmp_path / 'out/000000000.png').read_bytes())
    assert seen[0] == seen[1] != seen[2]


def test_nothing_to_crop_and_missing_pictures_are_named(tmp_path):
    with pytest.raises(DataError, match='a.json has no box to crop'):
        write_box_crops(annotations(tmp_path, {'bbox': [70, 0, 5, 5]}), tmp_path / 'in', tmp_path / 'out')
    file = annotations(tmp_path, {'bbox': [0, 0, 5, 5]})
    (tmp_path / 'in/a.png').unlink()
    with pytest.raises(DataError, match='a.png cannot be read'):
        write_box_crops(file, tmp_path / 'in', tmp_path / 'out')
