"""Boxes from a detector for images of known class."""

import json

import numpy as np
import pytest

from florence_mm.datasets import DataError, DetectionDataset
from florence_mm.datasets.merging import merge_detection, write_pseudo_boxes
from florence_mm.datasets.merging.pseudo_boxes import select_boxes
from florence_mm.datasets.merging.sources import make_plan

ROWS = [('n1/a.jpg', 'Cat'), ('n2/a.jpg', 'dog'), ('n2/b.jpg', 'dog')]
FOUND = {
    'n1/a.jpg': ([[0, 0, 10, 10], [5, 5, 20, 20], [1, 1, 9, 9], [2, 2, 8, 8]], [0.9, 0.8, 0.7, 0.3],
                 ['cat', 'dog', 'cat', 'cat']),
    'n2/a.jpg': ([[3, 3, 3, 9]], [0.9], ['dog']),
    'n2/b.jpg': ([[0, 0, 30, 20]], [0.6], ['dog']),
}  # fmt: skip


def detect(path):
    boxes, scores, names = FOUND[path]
    return np.array(boxes, float), np.array(scores), names, (40, 50)


def test_boxes_worked_by_hand(tmp_path):
    counts = write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json', '', ['cat', 'dog'], score_thr=0.5, top_k=1)
    content = json.loads((tmp_path / 'p.json').read_text())
    assert content['categories'] == [{'id': 1, 'name': 'Cat'}, {'id': 2, 'name': 'dog'}]
    nothing_else = {'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    assert content['images'] == [
        {'id': 1, 'file_name': 'n1/a.jpg', 'width': 50, 'height': 40, **nothing_else},
        {'id': 2, 'file_name': 'n2/b.jpg', 'width': 50, 'height': 40, **nothing_else},
    ]
    assert [(a['image_id'], a['category_id'], a['bbox'], a['score']) for a in content['annotations']] == [
        (1, 1, [0, 0, 10, 10], 0.9),
        (2, 2, [0, 0, 30, 20], 0.6),
    ]
    # of the cat's: one of another class, one below 0.5, one beyond the best; the dog's first box has no area
    assert (counts.other_class, counts.low_score, counts.beyond_top_k) == (1, 2, 1)
    assert (counts.images, counts.images_without_boxes, counts.boxes) == (2, 1, 2)
    assert json.loads((tmp_path / 'p.report.json').read_text())['images_without_boxes'] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ['p.json', 'p.report.json']


def test_boxes_of_a_class_agnostic_detector_get_the_class_of_their_image(tmp_path):
    counts = write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json', score_thr=0.75)
    content = json.loads((tmp_path / 'p.json').read_text())
    assert [(a['category_id'], a['score']) for a in content['annotations']] == [(1, 0.9), (1, 0.8)]
    assert counts.other_class == 0


def test_ties_keep_their_order_and_top_k_takes_the_best():
    boxes = np.tile([0, 0, 1, 1], (4, 1))
    kept, left_out = select_boxes(boxes, np.array([0.5, 0.9, 0.9, 0.2]), np.ones(4, bool), 0.3, 2)
    assert kept.tolist() == [1, 2]
    assert left_out == {'other_class': 0, 'low_score': 1, 'beyond_top_k': 1}


def test_a_run_that_was_cut_off_goes_on(tmp_path):
    seen = []

    def dies(path):
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return detect(path)

    with pytest.raises(KeyboardInterrupt):
        write_pseudo_boxes(ROWS, dies, tmp_path / 'p.json')
    partial = tmp_path / 'p.json.partial.jsonl'
    assert not (tmp_path / 'p.json').exists()
    with partial.open('a') as file:
        file.write('{"file_name": "n2/b.jp')  # a line that was not finished
    with pytest.raises(DataError, match='partial.jsonl is of a run with other images or options'):
        write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json', score_thr=0.1)
    counts = write_pseudo_boxes(ROWS, dies, tmp_path / 'p.json')
    assert seen == ['n1/a.jpg', 'n2/a.jpg', 'n2/b.jpg', 'n2/b.jpg'] and counts.resumed == 2
    write_pseudo_boxes(ROWS, detect, tmp_path / 'whole.json')
    assert (tmp_path / 'p.json').read_bytes() == (tmp_path / 'whole.json').read_bytes()


def test_the_output_is_a_source_searched_for_its_own_class_alone(tmp_path):
    write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json', score_thr=0.75)
    source = {'name': 'in22k', 'format': 'coco', 'ann_file': str(tmp_path / 'p.json'), 'prefix': 'in22k/'}
    write_pseudo_boxes(ROWS[2:], detect, tmp_path / 'q.json')
    other = {'name': 'more', 'format': 'coco', 'ann_file': str(tmp_path / 'q.json')}
    merge_detection(make_plan([source, other]), tmp_path / 'all.json')
    content = json.loads((tmp_path / 'all.json').read_text())
    assert [a['score'] for a in content['annotations']] == [0.9, 0.8, 0.6]
    dataset = DetectionDataset(str(tmp_path / 'all.json'), check_files=False)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert [dataset.get_data_info(i)['annotated_labels'].tolist() for i in range(2)] == [[0], [1]]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'rows': []}, 'no images to find boxes in'),
        ({'detector_classes': ['cat']}, "the detector has no class 'dog'"),
        ({'score_thr': 2}, 'score_thr=2'),
        ({'top_k': 0}, 'top_k=0'),
        ({'score_thr': 0.99}, 'no box in any of 3 images was good enough'),
        ({'detect': lambda path: ([[0, 0, 1, 1]], [np.nan], ['cat'], (4, 4))}, 'not finite'),
        ({'detect': lambda path: ([[0, 0, 1, 1]], [1, 1], ['cat'], (4, 4))}, r'boxes \(1, 4\), 2 scores'),
    ],
)
def test_bad_input(tmp_path, kwargs, message):
    given = {'rows': ROWS, 'detect': detect, 'out': tmp_path / 'p.json', **kwargs}
    with pytest.raises(DataError, match=message):
        write_pseudo_boxes(**given)
    assert not (tmp_path / 'p.json').exists()
