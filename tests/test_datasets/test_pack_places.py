"""Places of images from boxes, and the metric of what is predicted there."""

import numpy as np
import pytest
import torch

from florence_mm.datasets.transforms import PackPlaces
from florence_mm.errors import DataError
from florence_mm.evaluation import PlaceAccuracy

BOXES = [
    {'bbox': [0, 0, 20, 20], 'bbox_label': 3},
    {'bbox': [5, 5, 15, 15], 'bbox_label': 7},  # smaller, inside the first
    {'bbox': [30, 0, 40, 10], 'bbox_label': 1, 'ignore_flag': 1},
]


def pack(boxes=BOXES, size=(20, 40), **options):
    results = {'img': np.zeros((*size, 3), np.uint8), 'instances': boxes, 'ori_shape': (20, 40), 'sample_idx': 5}
    return PackPlaces(10, **options)(results)['data_samples']


def test_picture_outside_a_data_set_has_no_places():
    with pytest.raises(DataError, match='places from the boxes of a data set, and this picture has none'):
        PackPlaces(10)({'img': np.zeros((20, 40, 3), np.uint8)})


def test_labels_are_those_of_the_smallest_box_around():
    np.random.seed(0)
    sample = pack(per_box=50, elsewhere=50)
    assert sample.places.shape == (200, 2) and sample.place_labels.dtype == torch.int64
    x, y = (sample.places * torch.tensor([40, 20])).T
    inner = (x >= 5) & (x <= 15) & (y >= 5) & (y <= 15)
    expected = torch.where(inner, 7, torch.where(x <= 20, 3, torch.where((x >= 30) & (y <= 10), -1, 10)))
    assert torch.equal(sample.place_labels, expected)
    assert (sample.place_labels[:50] != 10).all() and (sample.place_labels[50:100] == 7).all()
    assert (sample.place_labels[150:] == 10).all()


def test_a_seed_decides_the_places_of_a_sample_and_resizing_does_not_move_them():
    first, again, resized = pack(seed=1), pack(seed=1), pack(seed=1, size=(10, 10))
    assert torch.equal(first.places, again.places) and torch.equal(first.places, resized.places)
    assert torch.equal(first.place_labels, resized.place_labels)
    assert not torch.equal(first.places, pack(seed=2).places)


def test_no_room_elsewhere_and_no_boxes():
    assert len(pack([{'bbox': [0, 0, 40, 20], 'bbox_label': 2}], elsewhere=3, per_box=1).places) == 1
    assert pack([], elsewhere=3).place_labels.tolist() == [10] * 3


@pytest.mark.parametrize('options', [{'per_box': -1}, {'per_box': 0, 'elsewhere': 0}, {'seed': 'x'}])
def test_numbers_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PackPlaces(10, **options)


def test_accuracy_and_controls_by_hand():
    metric = PlaceAccuracy(nothing=9)
    samples = [
        {'pred_places': torch.tensor([1, 9, 1]), 'place_labels': torch.tensor([1, 9, 9])},
        {'pred_places': torch.tensor([4, 4]), 'place_labels': torch.tensor([4, -1])},
    ]
    metric.process(None, samples)
    scores = metric.compute_metrics(metric.results)
    # pairs of an answer and a label of the first image that agree: 1-1 twice, 9-9 twice, of nine; of labels 1 + 4
    assert scores == pytest.approx(
        {'accuracy': 3 / 4, 'permuted': (4 / 3 + 1) / 4, 'chance': (5 / 3 + 1) / 4, 'something': 1.0}
    )


def test_permuted_is_the_mean_over_all_permutations():
    from itertools import permutations

    predicted, labels = [0, 2, 2], [0, 1, 2]
    metric = PlaceAccuracy()
    metric.process(None, [{'pred_places': torch.tensor(predicted), 'place_labels': torch.tensor(labels)}])
    orders = list(permutations(predicted))
    right = sum(sum(p == y for p, y in zip(order, labels, strict=True)) for order in orders)
    assert metric.compute_metrics(metric.results)['permuted'] == pytest.approx(right / len(orders) / 3)


def test_a_sample_without_predictions_is_refused():
    with pytest.raises(ValueError, match="no 'pred_places'"):
        PlaceAccuracy().process(None, [{'place_labels': torch.tensor([1])}])
    metric = PlaceAccuracy()
    metric.process(None, [{'pred_places': torch.tensor([1]), 'place_labels': torch.tensor([-1])}])
    with pytest.raises(ValueError, match='no sample has a place that counts'):
        metric.compute_metrics(metric.results)
