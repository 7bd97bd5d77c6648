"""Boxes from a detector for images of known class."""

import json

import numpy as np
import pytest

from florence_mm.datasets import DetectionDataset
from florence_mm.errors import DataError
from florence_mm.preparation.merging import merge_detection, write_pseudo_boxes
from florence_mm.preparation.merging.sources import make_plan
from florence_mm.preparation.pseudo_boxes import select_boxes

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


def unreadable(path):
    if path == 'n2/a.jpg':
        raise DataError(f'{path} is cut off')
    return detect(path)


def test_images_that_cannot_be_read_are_counted_up_to_a_number(tmp_path):
    out = tmp_path / 'p.json'
    with pytest.raises(DataError, match='1 rows are unusable, more than the 0 that max_bad allows.*a.jpg is cut off'):
        write_pseudo_boxes(ROWS, unreadable, out)
    # what was found before is there; a third of three images is one
    counts = write_pseudo_boxes(ROWS, unreadable, out, max_bad=0.34)
    assert (counts.resumed, counts.unreadable, counts.images, counts.images_without_boxes) == (1, 1, 2, 0)
    assert [image['file_name'] for image in json.loads(out.read_text())['images']] == ['n1/a.jpg', 'n2/b.jpg']
    assert json.loads((tmp_path / 'p.report.json').read_text())['unreadable'] == 1
    with pytest.raises(DataError, match='more than the 0 that max_bad allows'):
        write_pseudo_boxes(ROWS, unreadable, out, max_bad=0.3)
    with pytest.raises(ValueError, match='max_bad=-1 must be a number of rows'):
        write_pseudo_boxes(ROWS, unreadable, out, max_bad=-1)
    with pytest.raises(DataError, match='none of the images can be read'):
        write_pseudo_boxes(ROWS[1:2], unreadable, tmp_path / 'q.json', max_bad=1)


def test_a_run_that_goes_on_counts_what_could_not_be_read_before(tmp_path):
    def dies(path):
        if path == 'n2/b.jpg':
            raise KeyboardInterrupt
        return unreadable(path)

    with pytest.raises(KeyboardInterrupt):
        write_pseudo_boxes(ROWS, dies, tmp_path / 'p.json', max_bad=1)
    with pytest.raises(DataError, match='more than the 0 that max_bad allows.*a.jpg is cut off'):
        write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json')
    counts = write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json', max_bad=2)
    assert (counts.resumed, counts.unreadable, counts.images) == (2, 1, 2)


def test_damaged_partial_files(tmp_path):
    partial = tmp_path / 'p.json.partial.jsonl'

    def cut_off(after):
        """A partial file with the options and so many images."""

        def dies(path):
            if path == ROWS[after][0]:
                raise KeyboardInterrupt
            return detect(path)

        with pytest.raises(KeyboardInterrupt):
            write_pseudo_boxes(ROWS, dies, tmp_path / 'p.json')
        return partial.read_bytes()

    whole = write_pseudo_boxes(ROWS, detect, tmp_path / 'q.json')
    # stopped before the first image: the options alone are there
    assert cut_off(0).count(b'\n') == 1
    assert write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json') == whole
    # the options were not finished, so nothing was found
    partial.write_bytes(cut_off(0)[:-9])
    assert write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json') == whole
    # images behind a damaged line are found again
    lines = cut_off(2).splitlines(keepends=True)
    partial.write_bytes(lines[0] + b'\0' * 20 + b'\n' + lines[2])
    assert write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json') == whole
    assert (tmp_path / 'p.json').read_bytes() == (tmp_path / 'q.json').read_bytes()
    for damaged in (b'{"options": {"im\n', b'\xff\n', b'[]\n', b'{}\n'):
        partial.write_bytes(damaged + b''.join(lines[1:]))
        with pytest.raises(DataError, match='the first line of .*p.json.partial.jsonl is damaged; remove the file'):
            write_pseudo_boxes(ROWS, detect, tmp_path / 'p.json')


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
