"""Average precision compared with other implementations, in cases made to be awkward."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from florence_mm.evaluation.functional.box_matching import Detections, Objects, best_of_each_group, match
from florence_mm.evaluation.functional.detection import precision_table

CLASSES = 3
IMAGES = 5


def make_case(seed):
    """Objects and detections on a coarse grid, so that IoU, areas and scores are often equal or at a limit."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        return np.concatenate([rng.integers(0, 5, (count, 2)) * 4, rng.choice([12, 16, 32, 96], (count, 2))], 1) * 1.0

    m, n = rng.integers(0, 80), rng.integers(0, 200)
    known = boxes(m)
    objects = Objects(
        rng.integers(0, IMAGES, m),
        rng.integers(0, CLASSES - 1, m),  # the last class has no objects
        known,
        known[:, 2] * known[:, 3] * rng.choice([1.0, 0.5], m),
        rng.random(m) < 0.15,
    )
    found = boxes(n)
    places = rng.integers(0, IMAGES, n), rng.integers(0, CLASSES, n)
    if m and n:
        # half of them where an object is, moved a little or not at all
        near = rng.integers(0, m, n)
        copies = rng.random(n) < 0.6
        moved = known[near] + rng.choice([0, 0, 0, 1, 2, 4], (n, 4))
        found[copies] = moved[copies]
        places = tuple(
            np.where(copies, a[near], b) for a, b in zip((objects.images, objects.classes), places, strict=True)
        )
    detections = Detections(*places, found, rng.integers(0, 6, n) / 5, np.zeros(n, bool))
    return objects, detections


def as_files(objects, detections, **lists):
    """The case in COCO's formats, with ids from 1."""
    truth = {
        'images': [{'id': i + 1, **{key: rows[i] for key, rows in lists.items()}} for i in range(IMAGES)],
        'categories': [{'id': k + 1, 'name': str(k), 'frequency': 'f'} for k in range(CLASSES)],
        'annotations': [
            {
                'id': number + 1,
                'image_id': int(objects.images[number]) + 1,
                'category_id': int(objects.classes[number]) + 1,
                'bbox': objects.boxes[number].tolist(),
                'area': float(objects.areas[number]),
                'iscrowd': int(objects.ignored[number]),
            }
            for number in range(len(objects.images))
        ],
    }
    found = [
        {'image_id': int(image) + 1, 'category_id': int(k) + 1, 'bbox': box.tolist(), 'score': float(score)}
        for image, k, box, score in zip(
            detections.images, detections.classes, detections.boxes, detections.scores, strict=True
        )
    ]
    return truth, found


def tables_of(coco, evaluate, truth, found, max_dets, **settings):
    """Precision and recall of another implementation."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco()
        known.dataset = truth
        known.createIndex()
        evaluator = evaluate(known, known.loadRes(found), 'bbox', **settings)
        evaluator.params.maxDets = [max_dets]
        evaluator.evaluate()
        evaluator.accumulate()
    return [np.asarray(evaluator.eval[key])[..., 0] for key in ('precision', 'recall')]


@pytest.mark.parametrize('max_dets', [100, 2])
@pytest.mark.parametrize('seed', range(25))
def test_equals_pycocotools(seed, max_dets):
    objects, detections = make_case(seed)
    truth, found = as_files(objects, detections)
    if not found:
        pytest.skip('pycocotools cannot read an empty list')
    tables = precision_table(objects, detections, CLASSES, max_dets)
    for ours, theirs in zip(tables, tables_of(COCO, COCOeval, truth, found, max_dets), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize('seed', range(25, 40))
def test_federated_sets_equal_faster_coco_eval(seed):
    rng = np.random.default_rng(seed)
    objects, detections = make_case(seed)
    # classes annotated without objects, and classes annotated in part
    lists = {
        key: [rng.choice(CLASSES, rng.integers(0, 3), replace=False) for _ in range(IMAGES)]
        for key in ('neg_category_ids', 'not_exhaustive_category_ids')
    }
    truth, found = as_files(objects, detections, **{k: [(row + 1).tolist() for row in v] for k, v in lists.items()})
    pairs = [set(zip(objects.images.tolist(), objects.classes.tolist(), strict=True)), set()]
    for group, rows in zip(pairs, lists.values(), strict=True):
        group.update((image, k) for image, row in enumerate(rows) for k in row.tolist())
    annotated, excused = (
        np.array([place in group for place in zip(detections.images, detections.classes, strict=True)], bool)
        for group in pairs
    )
    chosen = Detections(detections.images, detections.classes, detections.boxes, detections.scores, excused)[annotated]
    theirs = tables_of(FasterCOCO, COCOeval_faster, truth, found, 300, lvis_style=True)
    for ours, other in zip(precision_table(objects, chosen, CLASSES, 300), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-9)


def one_image(objects, detections, ignored=(), scores=None):
    """Objects and detections of class 0 in image 0, from boxes."""
    known, found = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (objects, detections))
    flags = np.isin(np.arange(len(known)), ignored)
    zeros = np.zeros(len(known), int)
    none = np.zeros(len(found), int)
    scores = -np.arange(len(found)) if scores is None else np.array(scores)
    return Objects(zeros, zeros, known, known[:, 2] * known[:, 3], flags), Detections(
        none, none, found, scores, none.astype(bool)
    )


def test_matches_by_hand():
    areas, thresholds = np.array([[0, 1e9]]), np.array([0.5, 0.8])
    box, wide = (0, 0, 10, 10), (0, 0, 12, 10)
    # both detections fit both objects: the first takes its own, the second what is left, at IoU 10/12 = 0.83
    found = match(*one_image([box, wide], [wide, wide]), 1, areas, thresholds)
    assert found.detections.tolist() == [0, 1] and found.right.tolist() == [[True, True], [True, True]]
    # both objects fit as well: the last one is taken, so that a detection of it finds none, and one of the first does
    pair, between = [box, (4, 0, 10, 10)], (2, 0, 10, 10)
    for second, right in ((pair[1], False), (pair[0], True)):
        found = match(*one_image(pair, [between, second]), 1, areas, np.array([0.5]))
        assert found.right[:, 0].tolist() == [True, right]
    # a third has nothing left; one that overlaps nothing is not in the list
    found = match(*one_image([box, wide], [wide, (50, 50, 5, 5), wide, box]), 1, areas, thresholds)
    assert found.detections.tolist() == [0, 2, 3] and found.right.tolist() == [[True] * 2, [True] * 2, [False] * 2]
    # an ignored region is taken by any number, by the part of a detection in it: 50 of 60 are below 0.85
    found = match(*one_image([box], [box, (5, 0, 6, 10)], [0]), 1, areas, np.array([0.8, 0.85]))
    assert not found.right.any() and found.ignored.tolist() == [[True, True], [True, False]]
    # an object with less IoU comes before the region
    found = match(*one_image([box, wide], [wide, wide], [1]), 1, areas, thresholds)
    assert found.right.tolist() == [[True, True], [False, False]] and found.ignored.tolist() == [
        [False] * 2,
        [True] * 2,
    ]


@pytest.mark.parametrize('pairs_at_once', [1, 7, 1 << 18])
def test_pieces_change_nothing(pairs_at_once):
    objects, detections = make_case(4)
    detections = best_of_each_group(detections, CLASSES, 100)
    areas, thresholds = np.array([[0, 1e9], [0, 1024]]), np.array([0.5, 0.75])
    whole, pieces = (
        vars(match(objects, detections, CLASSES, areas, thresholds, *most)) for most in ((), (pairs_at_once,))
    )
    assert len(whole['detections']) > 20
    for key, values in whole.items():
        np.testing.assert_array_equal(pieces[key], values)


def test_a_box_equal_but_for_rounding_matches_at_an_iou_of_one():
    # as pycocotools takes 1 - 1e-10 for 1
    objects = Objects(*(np.zeros(1, int),) * 2, np.array([[0.0, 0, 10, 10]]), np.full(1, 100.0), np.zeros(1, bool))
    boxes = np.array([[0, 0, 10, 10 + 1e-11]])
    detections = Detections(*(np.zeros(1, int),) * 2, boxes, np.ones(1), np.zeros(1, bool))
    assert match(objects, detections, 1, np.array([[0, 1e5]]), np.ones(1)).right.tolist() == [[True]]


def test_equal_scores_keep_their_order():
    _, detections = one_image([], [(i, 0, 1, 1) for i in range(5)], scores=[0.5, 0.9, 0.5, 0.9, 0.1])
    assert best_of_each_group(detections, 1, 4).boxes[:, 0].tolist() == [1, 3, 0, 2]
