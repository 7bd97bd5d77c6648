import contextlib
import io

import numpy as np
import pytest

from florence_mm.evaluation.functional.regions import (
    BoxCounts,
    count_boxes,
    first_hit,
    mask_overlap,
    phrase_ranks,
    polygon_mask,
    summarize_counts,
    summarize_overlaps,
    written_precision,
)
from florence_mm.language.regions import Region, Target


def target(*regions):
    return Target(regions=regions)


def test_the_first_box_that_overlaps_enough():
    square = (0.0, 0.0, 0.5, 0.5)
    half, third = (0.0, 0.0, 0.5, 0.25), (0.25, 0.0, 0.75, 0.5)  # IoU 1/2 and 1/3
    assert first_hit([third, half, square], [square]) == 1
    assert first_hit([third, half, square], [square], 0.51) == 2
    assert first_hit([third], [(0.9, 0.9, 1, 1), (0.25, 0, 0.75, 0.4)]) == 0  # any of the annotated ones
    assert first_hit([third], [square]) is None and first_hit([], [square]) is None and first_hit([third], []) is None


def test_ranks_of_phrases_by_hand():
    left, right, both = (0.0, 0.0, 0.25, 0.5), (0.25, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5)
    far = (0.8, 0.8, 0.9, 0.9)
    annotated = target(
        Region('two dogs', boxes=(left, right)), Region('The cat.', boxes=(far,)), Region('x', boxes=(far,))
    )
    written = target(
        Region('two  Dogs', boxes=(far, left), score=0.5),
        Region('the cat', boxes=(left,), score=0.2),
        Region('two dogs', boxes=(both,), score=0.4),
    )
    # far, left, both for the dogs; both has an IoU of exactly 1/2 with each of them
    assert phrase_ranks(written, annotated) == [1, None, None]
    # left has 1/2 with the box around both
    assert phrase_ranks(written, annotated, merged=True) == [1, None, None]
    small = target(Region('two dogs', boxes=((0.0, 0.0, 0.2, 0.5), both)))
    assert phrase_ranks(small, annotated)[0] == 0  # 4/5 with one
    assert phrase_ranks(small, annotated, merged=True)[0] == 1  # 2/5 with the box around both
    # the highest score is first, whichever was written first
    ranked = target(Region('the cat', boxes=(left,), score=0.1), Region('the cat', boxes=(far,), score=0.2))
    assert phrase_ranks(ranked, annotated)[1] == 0


def test_masks_by_hand():
    square = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    mask = polygon_mask([square], 4, 8)
    assert mask.sum() == 8 and mask[1:3, 2:6].all()
    triangle = ((0, 0), (1, 0), (0, 1))
    assert polygon_mask([triangle], 4, 4).sum(1).tolist() == [3, 2, 1, 0]  # centres on the border are outside here
    assert polygon_mask([((0, 0), (1, 0), (1, 1), (0, 1))], 3, 5).all()
    assert not polygon_mask([], 3, 5).any()
    # parts are joined, and overlap once
    assert polygon_mask([square, square[::-1], triangle], 4, 4).sum() == 4 + 6 - 1
    # a part that crosses itself: two triangles
    bow = ((0, 0), (1, 1), (1, 0), (0, 1))
    mask = polygon_mask([bow], 100, 100)
    assert mask[50, 5] and mask[50, 95] and not mask[5, 50] and not mask[95, 50] and abs(mask.mean() - 0.5) < 0.01


def test_masks_as_matplotlib_and_nearly_as_pycocotools():
    from matplotlib.path import Path
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(60) + 0.5, np.arange(40) + 0.5), -1).reshape(-1, 2)
    for _ in range(10):
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 9)), rng.uniform(5, 19, 9)
        points = np.stack([30 + radii * np.cos(angles), 20 + radii * np.sin(angles)], 1)
        mask = polygon_mask([tuple(map(tuple, points / (60, 40)))], 40, 60)
        assert (mask.reshape(-1) == Path(points).contains_points(centres)).all()
        other = coco.decode(coco.frPyObjects([points.ravel().tolist()], 40, 60))[..., 0].astype(bool)
        assert (mask != other).mean() < 0.03 and (mask & other).sum() / (mask | other).sum() > 0.85


def test_overlaps_by_hand():
    left, top = ((0, 0), (0.5, 0), (0.5, 1), (0, 1)), ((0, 0), (1, 0), (1, 0.5), (0, 0.5))
    a, b = target(Region(polygons=(left,))), target(Region(polygons=(top,)))
    assert mask_overlap(a, b, 4, 4) == (4, 12)
    assert mask_overlap(a, Target(), 4, 8) == (0, 16) and mask_overlap(a, a, 2, 2) == (2, 2)
    corner = target(Region(polygons=(left,)), Region(polygons=(top,)))  # all outlines of a picture are one mask
    assert mask_overlap(corner, b, 4, 4) == (8, 12)
    assert summarize_overlaps([(4, 12), (2, 2), (0, 16)]) == pytest.approx(
        {'mIoU': (1 / 3 + 1 + 0) / 3, 'oIoU': 6 / 30}
    )
    assert summarize_overlaps([(0, 0)]) == {'mIoU': 1.0, 'oIoU': 1.0}


def test_counts_by_hand():
    one, two, three = (0.0, 0.0, 0.1, 0.1), (0.2, 0.0, 0.3, 0.1), (0.4, 0.0, 0.5, 0.1)
    annotated = target(Region('dog', boxes=(one, two)), Region('cat', boxes=(three,)))
    written = target(
        Region('Dog', boxes=(one,), score=0.9),
        Region('dog', boxes=(one,), score=0.8),  # the second one on an object is wrong
        Region('cat', boxes=(two,), score=0.7),  # another text: found, but wrong
        Region('bird', boxes=((0.8, 0.8, 0.9, 0.9),), score=0.6),
    )
    counts = count_boxes(written, annotated)
    assert counts == BoxCounts(annotated=3, predicted=4, right=1, found=2)
    scores = summarize_counts([counts, BoxCounts(1, 0, 0, 0), BoxCounts(0, 1, 0, 0)])
    assert scores == pytest.approx({'precision': 1 / 5, 'recall': 1 / 4, 'F1': 2 / 9, 'found': 2 / 4})
    assert summarize_counts([count_boxes(Target(), Target())])['F1'] == 0


def test_a_box_takes_the_best_free_one():
    near, exact = (0.0, 0.0, 0.1, 0.12), (0.0, 0.0, 0.1, 0.1)
    annotated = target(Region('a', boxes=(near, exact)))
    assert count_boxes(target(Region('a', boxes=(exact, exact))), annotated).right == 2
    assert count_boxes(target(Region('a', boxes=(exact, exact, exact))), annotated).right == 2


def test_average_precision_by_hand():
    one, two = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    annotated = [target(Region('dog', boxes=(one, two))), target(Region('Cat', boxes=(one,)))]
    sizes = [(100, 100), (20, 20)]
    written = [
        target(
            Region('dog', boxes=(one,), score=0.9),
            Region('dog', boxes=((0.0, 0.6, 0.2, 1.0),), score=0.5),
            Region('dog', boxes=(two,), score=0.1),
            Region('bird', boxes=(one,), score=1.0),  # no class
        ),
        target(Region('cat', boxes=(one,), score=0.3), Region('dog', boxes=(one,), score=0.05)),
    ]
    # dogs: right, wrong, right, wrong: precision 1 to recall 0.5 (51 of 101 recalls), 2/3 behind; the cat is right
    dog = (51 + 50 * 2 / 3) / 101
    scores = written_precision(written, annotated, sizes)
    assert [scores[key] for key in ('AP', 'AP50', 'AP75')] == pytest.approx([(dog + 1) / 2] * 3)
    assert scores['AP_s'] == pytest.approx(1) and scores['AP_l'] == -1 and scores['AR'] == 1
    # without scores in the order of writing
    unscored = [target(*(Region(region.text, region.boxes) for region in x.regions)) for x in written]
    assert written_precision(unscored, annotated, sizes)['AP50'] == pytest.approx((dog + 1) / 2)
    assert written_precision([Target()] * 2, annotated, sizes)['AP'] == 0


def test_average_precision_as_pycocotools():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, names = np.random.default_rng(1), ['bird', 'cat', 'dog']

    def boxes(count):
        corners = np.sort(rng.random((count, 2, 2)), 1).reshape(count, 4)
        return [(x0, y0, x1 + 0.02, y1 + 0.02) for x0, y0, x1, y1 in corners / 1.05]

    annotated, written, sizes = [], [], []
    truth = {'images': [], 'annotations': [], 'categories': [{'id': i, 'name': n} for i, n in enumerate(names, 1)]}
    found = []
    for image in range(12):
        size = (int(rng.integers(50, 300)), int(rng.integers(50, 300)))
        sizes.append(size)
        truth['images'].append({'id': image, 'height': size[0], 'width': size[1]})
        scale = np.array([size[1], size[0]] * 2)
        known = [(str(rng.choice(names)), box) for box in boxes(6)]
        moved = [(n, tuple(np.clip(np.add(b, rng.normal(0, 0.03, 4)), 0, 1))) for n, b in known]
        guessed = [(n, b, float(rng.random())) for n, b in moved if b[0] < b[2] and b[1] < b[3]]
        annotated.append(target(*(Region(n, boxes=(b,)) for n, b in known)))
        written.append(target(*(Region(n, boxes=(b,), score=s) for n, b, s in guessed)))
        for name, box in known:
            x0, y0, x1, y1 = scale * box
            row = {'image_id': image, 'category_id': names.index(name) + 1, 'iscrowd': 0}
            row |= {
                'bbox': [x0, y0, x1 - x0, y1 - y0],
                'area': (x1 - x0) * (y1 - y0),
                'id': len(truth['annotations']) + 1,
            }
            truth['annotations'].append(row)
        for name, box, score in guessed:
            x0, y0, x1, y1 = scale * box
            row = {'image_id': image, 'category_id': names.index(name) + 1, 'score': score}
            found.append({**row, 'bbox': [x0, y0, x1 - x0, y1 - y0]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = written_precision(written, annotated, sizes)
    ours = [scores[key] for key in ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')]
    assert 0.1 < ours[0] < 0.9
    assert ours == pytest.approx(evaluation.stats[:6].tolist(), abs=1e-12)
