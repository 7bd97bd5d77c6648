import contextlib
import importlib.util
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from florence_mm.errors import DataError
from florence_mm.evaluation import DetectionMetric
from florence_mm.evaluation.metrics.detection import precision_by_class
from florence_mm.registry import METRICS

WORKER = Path(__file__).with_name('detection_worker.py')
spec = importlib.util.spec_from_file_location('detection_worker', WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


def image(i, **more):
    return {'id': i, 'file_name': f'{i}.png', 'width': 100, 'height': 100, **more}


def annotation(i, image_id, category_id, box, **more):
    return {'id': i, 'image_id': image_id, 'category_id': category_id, 'bbox': box, 'iscrowd': 0, **more}


def sample(image_id, *detections):
    """From (x1, y1, x2, y2, score, label) each."""
    table = torch.tensor(detections, dtype=torch.float32).reshape(-1, 6)
    found = {'bboxes': table[:, :4], 'scores': table[:, 4], 'labels': table[:, 5].long()}
    return {'img_id': image_id, 'pred_instances': found}


def write(folder, content):
    path = folder / 'truth.json'
    path.write_text(json.dumps(content))
    return str(path)


def evaluate(path, samples, classes=None, **settings):
    metric = METRICS.build({'type': 'DetectionMetric', 'table_rows': 0, **settings})
    metric.dataset_meta = {'ann_file': path} | ({} if classes is None else {'classes': classes})
    metric.process(None, samples)
    return {key.removeprefix('bbox/'): value for key, value in metric.evaluate(len(samples)).items()}


@pytest.fixture
def two_classes(tmp_path):
    # cat 7: two boxes of 20x20; dog 4: one of 40x40
    return write(
        tmp_path,
        {
            'images': [image(1), image(2), image(3)],
            'annotations': [
                annotation(1, 1, 7, [0, 0, 20, 20]),
                annotation(2, 2, 7, [50, 50, 20, 20]),
                annotation(3, 2, 4, [0, 0, 40, 40]),
            ],
            'categories': [{'id': 7, 'name': 'cat'}, {'id': 4, 'name': 'dog'}],
        },
    )


def test_by_hand(two_classes):
    samples = [
        sample(1, (0, 0, 20, 20, 0.9, 0)),  # a cat, exactly
        # the second cat, moved by 2 of 20 pixels: IoU 18/22 = 0.82, right at the thresholds 0.50 to 0.80, 7 of 10
        sample(2, (52, 50, 72, 70, 0.8, 0), (0, 0, 40, 30, 0.7, 1)),  # the dog with IoU 0.75: 6 of 10 thresholds
        sample(3, (0, 0, 9, 9, 0.1, 0)),  # an invention below all others costs nothing
    ]
    scores = evaluate(two_classes, samples, ('cat', 'dog'), per_class=True, subsets={'pets': ['dog']})
    # where only the first cat counts precision is 1 up to recall 0.5: 51 of the 101 recalls
    cat = (7 * 1 + 3 * 51 / 101) / 10
    assert scores == {
        'AP': pytest.approx((cat + 0.6) / 2),
        'AP50': 1.0,
        'AP75': 1.0,
        'AP_s': pytest.approx(cat),
        'AP_m': pytest.approx(0.6),
        'AP_l': -1.0,
        'AR': pytest.approx((0.7 * 1 + 0.3 * 0.5 + 0.6) / 2),
        'pets_AP': pytest.approx(0.6),
        'pets_AP50': 1.0,
        'AP_cat': pytest.approx(cat),
        'AP50_cat': 1.0,
        'AP_dog': pytest.approx(0.6),
        'AP50_dog': 1.0,
    }


def test_labels_follow_the_data_sets_classes(two_classes):
    found = [sample(1, (0, 0, 20, 20, 0.9, 1)), sample(2, (50, 50, 70, 70, 0.9, 1), (0, 0, 40, 40, 0.9, 0)), sample(3)]
    assert evaluate(two_classes, found, ('dog', 'cat'))['AP'] == pytest.approx(1)
    assert evaluate(two_classes, found, ('cat', 'dog'))['AP'] == 0
    # without names labels go by category id
    assert evaluate(two_classes, found)['AP'] == pytest.approx(1)
    # a part of the classes: the boxes of others do not count
    assert evaluate(two_classes, [sample(1), sample(2, (0, 0, 40, 40, 0.9, 0)), sample(3)], ('dog',))['AP'] == 1


def test_nothing_evaluated_is_no_object(two_classes):
    assert set(evaluate(two_classes, [], ('cat', 'dog')).values()) == {-1.0}


def test_class_agnostic(two_classes):
    found = [sample(1, (0, 0, 20, 20, 0.9, 5)), sample(2, (50, 50, 70, 70, 0.8, 3), (0, 0, 40, 40, 0.7, 0)), sample(3)]
    scores = evaluate(two_classes, found, ('object',), class_agnostic=True)
    assert scores['AP'] == pytest.approx(1) and set(scores) == {'AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l', 'AR'}
    # one of three is missed: precision 1 up to recall 2/3, 67 of 101 recalls
    scores = evaluate(two_classes, [found[0], sample(2, (50, 50, 70, 70, 0.8, 3)), sample(3)], class_agnostic=True)
    assert scores['AP50'] == pytest.approx(67 / 101)


def test_no_detections_give_zero(two_classes):
    scores = evaluate(two_classes, [sample(1), sample(2), sample(3)], ('cat', 'dog'), per_class=True)
    assert scores['AP'] == scores['AP50'] == scores['AR'] == scores['AP_cat'] == 0
    assert scores['AP_l'] == -1


def test_images_that_were_not_evaluated_are_not_counted_as_missed(two_classes, monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.evaluation.metrics.detection.print_log', lambda text, **kwargs: said.append(text))
    assert evaluate(two_classes, [sample(1, (0, 0, 20, 20, 0.9, 0))], ('cat', 'dog'))['AP'] == pytest.approx(1)
    assert said == [f'{two_classes}: 1 of 3 images were evaluated']
    # the same image again, as of a sampler that fills up the last round, changes nothing: a second box on the first
    # cat would be wrong, and come before the second cat
    first, second = sample(1, (0, 0, 20, 20, 0.9, 0)), sample(2, (50, 50, 70, 70, 0.8, 0), (0, 0, 40, 40, 0.9, 1))
    assert evaluate(two_classes, [first, first, second], ('cat', 'dog'))['AP'] == pytest.approx(1)


def test_equals_pycocotools(tmp_path):
    truth = worker.make_ground_truth(60)
    path = write(tmp_path, truth)
    samples = worker.make_samples(truth)
    prefix = str(tmp_path / 'out/found')
    ours = evaluate(path, samples, worker.NAMES, outfile_prefix=prefix, per_class=True)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
        theirs = COCOeval(coco, coco.loadRes(f'{prefix}.bbox.json'), 'bbox')
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert 0.05 < ours['AP'] < 0.6
    for key, place in {'AP': 0, 'AP50': 1, 'AP75': 2, 'AP_s': 3, 'AP_m': 4, 'AP_l': 5, 'AR': 8}.items():
        assert ours[key] == pytest.approx(theirs.stats[place], abs=1e-9), key
    for place, name in enumerate(worker.NAMES):
        table = theirs.eval['precision'][:, :, place, 0, -1]
        assert ours[f'AP_{name}'] == pytest.approx(table[table > -1].mean(), abs=1e-9)
    assert not [file for file in (tmp_path / 'out').iterdir() if file.name.endswith('.tmp')]


def test_batching_changes_nothing(tmp_path):
    truth = worker.make_ground_truth(20)
    path = write(tmp_path, truth)
    samples = worker.make_samples(truth)
    whole = evaluate(path, samples, worker.NAMES)
    metric = DetectionMetric(path, table_rows=0)
    metric.dataset_meta = {'classes': worker.NAMES}
    for i in range(0, 20, 3):
        metric.process(None, samples[i : i + 3])
    assert {f'bbox/{key}': value for key, value in whole.items()} == metric.evaluate(20)


def test_two_processes_equal_one(two_processes, tmp_path):
    # 31 images: the second process gets one twice, which must not count
    path = write(tmp_path, worker.make_ground_truth(31))
    expected = worker.evaluate(path)
    assert expected['bbox/num_skipped'] == 3 and 0.05 < expected['bbox/AP'] < 0.9

    def work():
        (tmp_path / os.environ['RANK']).write_text(json.dumps(worker.evaluate(path, 'pytorch')))

    two_processes(work)
    for rank in '01':
        assert json.loads((tmp_path / rank).read_text()) == expected


@pytest.fixture
def lvis(tmp_path):
    """A rare, a common and a frequent class; see the tests for what each image was searched for."""
    return write(
        tmp_path,
        {
            'images': [
                image(1, neg_category_ids=[2], not_exhaustive_category_ids=[]),
                image(2, neg_category_ids=[], not_exhaustive_category_ids=[1]),
                image(3, neg_category_ids=[3], not_exhaustive_category_ids=[]),
            ],
            'annotations': [
                annotation(1, 1, 1, [0, 0, 20, 20]),
                annotation(2, 2, 1, [0, 0, 20, 20]),
                annotation(3, 2, 2, [40, 40, 20, 20]),
                annotation(4, 1, 3, [60, 60, 20, 20]),
            ],
            'categories': [
                {'id': 1, 'name': 'ant', 'frequency': 'f'},
                {'id': 2, 'name': 'bee', 'frequency': 'r'},
                {'id': 3, 'name': 'cat', 'frequency': 'c'},
            ],
        },
    )


LVIS_DETECTIONS = [
    # ant and cat right; a bee in an image that was searched for bees: wrong, before the right one
    sample(1, (0, 0, 20, 20, 0.6, 0), (60, 60, 80, 80, 0.7, 2), (0, 60, 20, 80, 0.9, 1)),
    # ant and bee right; another ant where not all ants have boxes: does not count, though its score is the highest;
    # a cat where cats were not looked for: does not count
    sample(2, (0, 0, 20, 20, 0.6, 0), (40, 40, 60, 60, 0.5, 1), (70, 0, 90, 20, 0.95, 0), (0, 60, 20, 80, 0.95, 2)),
    # an ant where ants were not looked for; a cat where cats were: wrong, before the right one
    sample(3, (0, 0, 20, 20, 0.99, 0), (0, 0, 20, 20, 0.8, 2)),
]


def test_lvis_by_hand(lvis):
    scores = evaluate(lvis, LVIS_DETECTIONS, ('ant', 'bee', 'cat'), style='lvis', per_class=True)
    assert scores['AP_f'] == scores['AP_ant'] == pytest.approx(1)
    # one wrong detection before the only right one: precision 1/2 at all recalls
    assert scores['AP_r'] == scores['AP_bee'] == pytest.approx(0.5)
    assert scores['AP_c'] == scores['AP_cat'] == pytest.approx(0.5)
    assert scores['AP'] == pytest.approx(2 / 3)
    # COCO's protocol counts all of them: ants 2 of 4 with two wrong ones first, cats 1 of 3
    plain = evaluate(lvis, LVIS_DETECTIONS, ('ant', 'bee', 'cat'), per_class=True)
    assert plain['AP_ant'] == pytest.approx(0.5) and plain['AP_cat'] == pytest.approx(1 / 3)


def test_lvis_counts_the_best_300_of_an_image(lvis):
    # 300 detections of other classes above the ant's leave it out, whatever their class
    many = [(0, 0, 5, 5, 0.9, 2)] * 300
    right = (0, 0, 20, 20, 0.5, 0)
    others = [sample(2, right), sample(3)]
    classes = ('ant', 'bee', 'cat')
    all_300 = evaluate(lvis, [sample(1, *many, right), *others], classes, style='lvis', per_class=True)
    only_299 = evaluate(lvis, [sample(1, *many[1:], right), *others], classes, style='lvis', per_class=True)
    assert only_299['AP_ant'] == pytest.approx(1)
    assert all_300['AP_ant'] == pytest.approx(51 / 101)


def test_table_of_classes():
    rows = [('cat', 3, 0.5, 0.75), ('grasshopper', 12, 0.25, 1.0), ('emu', 1, 1.0, 1.0)]
    assert precision_by_class(rows, 3).splitlines() == [
        'class         boxes      AP    AP50',
        'cat               3  0.5000  0.7500',
        'grasshopper      12  0.2500  1.0000',
        'emu               1  1.0000  1.0000',
    ]
    assert precision_by_class(rows, 1).splitlines()[1:] == [
        'grasshopper      12  0.2500  1.0000',
        'the lowest 1 of 3 classes',
    ]


def test_errors_have_their_sentence(two_classes, tmp_path):
    for settings, message in (
        ({'style': 'voc'}, "style='voc' of DetectionMetric must be 'coco' or 'lvis'"),
        ({'class_agnostic': True, 'per_class': True}, 'class_agnostic=True of DetectionMetric has no subsets'),
    ):
        with pytest.raises(ValueError, match=message):
            DetectionMetric(**settings)
    fine = [sample(1), sample(2), sample(3)]
    for samples, settings, classes, message in (
        (fine, {}, ('cow',), "truth.json has no category 'cow', which is a class of the data set"),
        ([sample(9)], {}, ('cat',), 'has no image 9, which was evaluated'),
        ([sample(1, (0, 0, 1, 1, 0.5, 2))], {}, ('cat', 'dog'), 'image 1 has a detection of label 2.*has 2 classes'),
        ([sample(1, (0, 0, 1, np.nan, 0.5, 0))], {}, ('cat',), 'image 1 has a detection that is not finite'),
        (fine, {'subsets': {'new': ['cow']}}, ('cat',), r"the subset 'new' of DetectionMetric names \['cow'\]"),
        (fine, {'style': 'lvis'}, ('cat',), 'has no frequency'),
        ([{'img_id': 1}], {}, ('cat',), 'a sample has no `pred_instances`'),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(two_classes, samples, classes, **settings)
    with pytest.raises(FileNotFoundError, match='there is no annotation file .*gone.json'):
        evaluate(str(tmp_path / 'gone.json'), fine)
    metric = DetectionMetric()
    metric.process(None, fine)
    with pytest.raises(ValueError, match='has no ground truth; give it `ann_file`'):
        metric.evaluate(3)


@pytest.mark.parametrize('settings', [{}, {'class_agnostic': True}, {'style': 'lvis'}])
@pytest.mark.parametrize('first', [1, 0, -3, 2**40])
def test_no_id_has_a_meaning(tmp_path, settings, first):
    # two pictures, two classes, a box of each class in each picture, all found
    images = [image(first + i, neg_category_ids=[], not_exhaustive_category_ids=[first]) for i in range(2)]
    boxes = [annotation(first + 2 * i + k, first + i, first + k, [10 * k, 0, 9, 9]) for i in range(2) for k in range(2)]
    categories = [{'id': first + k, 'name': name, 'frequency': 'r'} for k, name in enumerate(('cat', 'dog'))]
    path = write(tmp_path, {'images': images, 'annotations': boxes, 'categories': categories})
    found = [sample(first + i, (0, 0, 9, 9, 0.9, 0), (10, 0, 19, 9, 0.8, 1)) for i in range(2)]
    scores = evaluate(path, found, ('cat', 'dog'), **settings)
    assert scores['AP'] == scores['AP50'] == scores['AR'] == 1
    # only the cat is found, at half of all places where its box is
    scores = evaluate(path, [sample(first + i, (0, 0, 9, 9, 0.9, 0)) for i in range(2)], ('cat', 'dog'), **settings)
    # half of the objects: recalls 0 to 0.5 in steps of 0.01 are 51 of 101; or one class of two
    assert scores['AP'] == pytest.approx(51 / 101 if 'class_agnostic' in settings else 0.5)
    assert scores['AR'] == 0.5


def test_a_box_to_ignore_is_no_object_and_its_detection_no_mistake(tmp_path):
    boxes = [annotation(1, 1, 1, [0, 0, 20, 20]), annotation(2, 1, 1, [50, 50, 20, 20], ignore=1)]
    content = {'images': [image(1)], 'annotations': boxes, 'categories': [{'id': 1, 'name': 'cat'}]}
    both = [sample(1, (50, 50, 70, 70, 0.9, 0), (50, 50, 60, 60, 0.8, 0), (0, 0, 20, 20, 0.7, 0))]
    assert evaluate(write(tmp_path, content), both)['AP'] == 1
    assert evaluate(write(tmp_path, content), [sample(1, (0, 0, 20, 20, 0.7, 0))])['AP'] == 1
    boxes[1]['ignore'] = 0
    # the first detection is right, the second wrong, the third right: precisions 1 up to recall 0.5, then 2/3
    assert evaluate(write(tmp_path, content), both)['AP'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_an_area_of_null_is_that_of_the_box(tmp_path):
    boxes = [annotation(1, 1, 1, [0, 0, 20, 20], area=None), annotation(2, 1, 1, [50, 50, 40, 40])]
    content = {'images': [image(1)], 'annotations': boxes, 'categories': [{'id': 1, 'name': 'cat'}]}
    scores = evaluate(write(tmp_path, content), [sample(1, (0, 0, 20, 20, 0.7, 0))])
    assert (scores['AP_s'], scores['AP_m'], scores['AP_l']) == (1, 0, -1)
    boxes[0]['area'] = '400'
    with pytest.raises(DataError, match="annotation 1 has area '400'; expected square pixels"):
        evaluate(write(tmp_path, content), [sample(1)])


def test_several_sets_at_once_are_refused(two_classes):
    metric = DetectionMetric(table_rows=0)
    metric.dataset_meta = [{'ann_file': two_classes, 'classes': ('cat', 'dog')}] * 2
    metric.process(None, [sample(1)])
    with pytest.raises(ValueError, match='evaluates one data set and file at a time'):
        metric.evaluate(1)


def test_fields_that_do_not_fit_each_other(two_classes):
    for key, value in (('scores', torch.ones(2)), ('labels', torch.tensor([0.5])), ('bboxes', torch.zeros(1, 5))):
        wrong = sample(1, (0, 0, 5, 5, 0.5, 0))
        wrong['pred_instances'][key] = value
        with pytest.raises(ValueError, match=r'image 1 has bboxes .*; expected \(n, 4\), \(n,\) and \(n,\) whole'):
            evaluate(two_classes, [wrong])


def test_types_of_detections_change_nothing(two_classes):
    plain = sample(1, (10, 10, 30, 30, 0.5, 1))
    kinds = [lambda x: x, lambda x: x.bfloat16() if x.is_floating_point() else x, lambda x: x.numpy()]
    found = [
        evaluate(two_classes, [{**plain, 'pred_instances': {k: kind(x) for k, x in plain['pred_instances'].items()}}])
        for kind in kinds
    ]
    assert found[0] == found[1] == found[2]


def test_unknown_images_of_several_types(two_classes):
    with pytest.raises(ValueError, match='has no image 9, which was evaluated'):
        evaluate(two_classes, [sample('x'), sample(9)])
