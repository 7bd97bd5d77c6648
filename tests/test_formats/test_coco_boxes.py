"""Boxes packed while a COCO-format file is parsed: what comes back, what is refused, and how much memory it takes."""

import json
import tracemalloc

import pytest

from florence_mm.datasets import DetectionDataset
from florence_mm.errors import DataError
from florence_mm.formats.coco import read_coco_file
from florence_mm.formats.coco_boxes import read_coco_boxes


def box(id_, image, category, bbox, **more):
    return {'id': id_, 'image_id': image, 'category_id': category, 'bbox': bbox, **more}


def write(path, annotations, images=(7, 3), **more):
    content = {
        # `annotations` is not the only place of an object with a box
        'info': {'bbox': [0, 0, 1, 1]},
        'annotations': annotations,
        'images': [{'id': i, 'file_name': f'{i}.png', 'width': 90, 'height': 90} for i in images],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': -5, 'name': 'dog'}],
        **more,
    }
    path.write_text(json.dumps(content))
    return path


def test_boxes_of_an_image_come_in_the_order_of_the_file(tmp_path):
    outline = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
    path = write(
        tmp_path / 'a.json',
        [
            box(2**62, 7, 1, [1, 2, 3, 4.1], segmentation=outline, iscrowd=0),
            box(4, 3, -5, [0.1, -2, 3e-7, 1e9], iscrowd=1, area=9),
            box(-1, 7, -5, [5, 6, 7, 8]),
        ],
    )
    content, boxes = read_coco_boxes(path)
    assert len(boxes) == 3
    assert boxes.for_image(7) == [(2**62, 1, False, [1, 2, 3, 4.1]), (-1, -5, False, [5, 6, 7, 8])]
    assert boxes.for_image(3) == [(4, -5, True, [0.1, -2, 3e-7, 1e9])]
    assert boxes.for_image(5) == []
    whole = read_coco_file(path)
    del whole['annotations']
    assert content == whole
    assert len(read_coco_boxes(write(tmp_path / 'b.json', []))[1]) == 0


@pytest.mark.parametrize(
    ('annotations', 'message'),
    [
        ([box(1, 7, 1, [1, 2, 3])], r'annotation 1 has bbox \[1, 2, 3\]'),
        ([box(1, 7, 1, [1, 2, 3, True])], 'annotation 1 has bbox'),
        ([box(1, 7, 1, [1, 2, 3, float('nan')])], 'annotation 1 has bbox'),
        ([box(1, 7, 1, [1, 2, 3, 4]), box(2, 8, 1, [1, 2, 3, 4])], 'annotation 2 has image_id 8'),
        ([box(1, 7, 2, [1, 2, 3, 4])], 'annotation 1 has category_id 2'),
        ([box(1, 7, 1, [1, 2, 3, 4]), box(1, 3, 1, [1, 2, 3, 4])], 'the annotation id 1 occurs twice'),
        ([box(1, 7, 1, [1, 2, 3, 4]), 5], r'annotation number 1 \(from 0\) has no'),
        ([{'id': 1, 'image_id': 7, 'bbox': [1, 2, 3, 4]}], "annotation number 0 .* has no 'category_id'"),
        ([box('1', 7, 1, [1, 2, 3, 4])], "has id '1'; expected a whole number"),
        ([box(2**63, 7, 1, [1, 2, 3, 4])], 'an id is no whole number of 64 bits'),
        ([box(1, 7.0, 1, [1, 2, 3, 4])], 'annotation 1 has image_id 7.0, which is none'),
    ],
)
def test_unusable_annotations_have_the_sentence_of_the_whole_file(tmp_path, annotations, message):
    with pytest.raises(DataError, match=f'a.json: .*{message}'):
        read_coco_boxes(write(tmp_path / 'a.json', annotations))


def test_an_image_beyond_64_bits(tmp_path):
    with pytest.raises(DataError, match='an id is no whole number of 64 bits'):
        read_coco_boxes(write(tmp_path / 'a.json', [], images=[2**63]))


def test_a_data_set_takes_less_than_the_file_as_objects(tmp_path):
    annotations = [box(i, i // 10, 1, [i % 7 + 0.5, 3.25, 9.125, 8.5], area=77.5, iscrowd=0) for i in range(5000)]
    path = write(tmp_path / 'a.json', annotations, images=range(500))

    def peak(build):
        tracemalloc.start()
        kept = build()
        size, largest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del kept
        return size, largest

    small = write(tmp_path / 'b.json', annotations[:10], images=[0])
    DetectionDataset(str(small), check_files=False)  # what is made once
    _, whole = peak(lambda: read_coco_file(path))
    held, largest = peak(lambda: DetectionDataset(str(path), check_files=False))
    # measured: 0.38, and 47 bytes a box
    assert largest < 0.5 * whole
    assert held < 5000 * 80
