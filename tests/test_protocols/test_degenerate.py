"""Figures of equal scores, of one class, and of classes that nobody has, beside scikit-learn's where it has them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score, top_k_accuracy_score

from florence_mm.errors import DataError
from florence_mm.protocols.episodes import draw_episode, mean_and_interval
from florence_mm.protocols.linear_probe import fit, search_strength, split_for_validation
from florence_mm.protocols.sets import MEAN_AP, ClassificationSet

SIX = ClassificationSet('six', (), classes=tuple('abcdef'))


def figures(scores, labels, **changes):
    return replace(SIX, **changes).figures(torch.tensor(scores), torch.tensor(labels))


def test_equal_scores_are_all_for_the_first_class():
    # as argmax has it: two of the six labels are 0, and five of them are below 5
    labels = [0, 0, 1, 2, 3, 5]
    found = figures([[0.5] * 6] * 6, labels)
    predicted = np.zeros((6, 6)).argmax(1)
    assert found['top1'] == pytest.approx(2 / 6) == recall_score(labels, predicted, average='micro')
    assert found['top5'] == pytest.approx(5 / 6)
    assert found['mean_per_class'] == pytest.approx(1 / 5) == balanced_accuracy_score(labels, predicted)


def test_classes_without_images_count_nothing():
    scores = np.random.default_rng(0).normal(size=(9, 6))
    labels = np.array([1, 1, 1, 4, 4, 4, 4, 4, 1])
    found = figures(scores.tolist(), labels.tolist())
    assert found['top1'] == pytest.approx(top_k_accuracy_score(labels, scores, k=1, labels=range(6)))
    assert found['top5'] == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=range(6)))
    of_class = recall_score(labels, scores.argmax(1), average=None, labels=[1, 4])
    assert found['mean_per_class'] == pytest.approx(of_class.mean())


def test_one_class_and_one_image():
    assert figures([[0.3]], [0]) == {'top1': 1.0, 'mean_per_class': 1.0}
    # five classes have no top 5, which would be 1 whatever the model
    assert 'top5' not in figures([[0.3] * 5], [0])


def test_average_precision_of_equal_scores_is_that_of_the_order():
    # by hand: ranks 1 and 4 are right; precision 1 up to recall 0.5, 2 / 4 beyond
    assert figures([[0.0]] * 4, [[1], [-1], [-1], [1]], metric=MEAN_AP)[MEAN_AP] == pytest.approx(
        (6 * 1 + 5 * 0.5) / 11
    )
    # the others have no image, or only difficult ones
    scores = [[0.0, 0.1, 0.2], [0.0, 0.3, 0.1], [0.0, 0.2, 0.0], [0.0, 0.1, 0.3]]
    truth = [[1, -1, 0], [-1, -1, -1], [-1, -1, 0], [1, -1, -1]]
    assert figures(scores, truth, metric=MEAN_AP)[MEAN_AP] == pytest.approx(8.5 / 11)
    # with no image of any class there is no mean, which the suite refuses to write
    assert math.isnan(figures([[0.0]] * 2, [[-1], [0]], metric=MEAN_AP)[MEAN_AP])


def test_a_probe_of_equal_features_knows_the_shares_alone():
    features, labels = np.ones((10, 3), np.float32), np.array([0] * 2 + [2] * 5 + [3] * 3)
    scores = fit(features, labels, 60)(features)
    model = LogisticRegression(C=10**1.5, max_iter=1000, random_state=0).fit(features, labels)
    np.testing.assert_allclose(scores[:, [0, 2, 3]], model.decision_function(features), rtol=1e-6)
    assert np.isneginf(scores[:, 1]).all() and set(scores.argmax(1)) == {2}


def test_a_probe_of_two_classes_whose_numbers_have_a_gap():
    features = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    scores = fit(features, np.array([0, 0, 3, 3]), 48)(features)
    assert scores.argmax(1).tolist() == [0, 0, 3, 3] and np.isneginf(scores[:, [1, 2]]).all()


def test_a_search_among_equals_and_numbers_that_are_none():
    assert search_strength(lambda place: 0.5) == 48
    assert search_strength(lambda place: math.nan) == 48
    assert search_strength(lambda place: math.nan if place < 90 else 0.0) >= 90


def test_classes_too_small_to_validate_train():
    train, val = split_for_validation(np.array([0, 1, 1, 2, 2, 2]))
    # a fifth of 1, 2 and 3 images is 0.2, 0.4 and 0.6, rounded
    assert len(val) == 1 and val[0] in (3, 4, 5) and len(train) == 5


def test_episodes_need_enough_images_of_every_class():
    labels = np.repeat(np.arange(5), [20, 20, 20, 20, 19])
    with pytest.raises(DataError, match='has 5 classes with at least 19 images; an episode needs 5 with 5 \\+ 15'):
        draw_episode(labels, 5, 5, 15, (0, 0))
    assert draw_episode(np.repeat(np.arange(5), 20), 5, 5, 15, (0, 0)).shape == (5, 20)
    with pytest.raises(DataError, match='has 0 classes with at least 0 images'):
        draw_episode(np.array([], dtype=np.int64), 5, 5, 15, (0, 0))
    assert mean_and_interval(np.array([0.2])) == (0.2, 0.0)
