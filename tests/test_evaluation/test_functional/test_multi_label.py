"""Eleven-point average precision, by hand and against the definition on random scores."""

import numpy as np
import pytest
import torch

from florence_mm.evaluation.functional import eleven_point_ap, mean_average_precision


@pytest.mark.parametrize(
    'scores, truth, expected',
    [
        ([3, 2, 1], [1, 1, -1], 1),
        # precision 1/2 at recall 1 is the best at every recall
        ([3, 2], [-1, 1], 1 / 2),
        # recalls up to 0.5 at precision 1, six of the eleven; the others at 2/3
        ([3, 2, 1], [1, -1, 1], (6 + 5 * 2 / 3) / 11),
        # what is not to be judged is not there
        ([9, 3, 8, 2, 1], [0, 1, 0, -1, 1], (6 + 5 * 2 / 3) / 11),
        # equal scores stay in their order
        ([1, 1], [1, -1], 1),
        ([1, 1], [-1, 1], 1 / 2),
        ([float('nan'), 1], [1, -1], 1 / 2),
    ],
)
def test_by_hand(scores, truth, expected):
    assert eleven_point_ap(torch.tensor(scores).float(), torch.tensor(truth)) == pytest.approx(expected)


def test_a_class_that_no_image_has_counts_for_nothing():
    assert np.isnan(eleven_point_ap(torch.tensor([1.0]), torch.tensor([-1])))
    scores = torch.tensor([[3.0, 1], [2, 2], [1, 3]])
    assert mean_average_precision(scores, torch.tensor([[-1, -1], [1, -1], [-1, 0]])) == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match=r'scores of shape \(3, 2\) and truth of \(3, 1\)'):
        mean_average_precision(scores, torch.ones(3, 1))


def definition(scores, truth):
    """Written down from the devkit's definition, one threshold after the other."""
    order = [i for i in np.argsort(-scores, kind='stable') if truth[i] != 0]
    total, best = sum(truth == 1), []
    for t in range(11):
        precisions = [0.0]
        for k in range(1, len(order) + 1):
            right = sum(truth[i] == 1 for i in order[:k])
            if 10 * right >= t * total:
                precisions.append(right / k)
        best.append(max(precisions))
    return np.mean(best)


def test_random_scores_against_the_definition():
    rng = np.random.default_rng(0)
    for size in (5, 13, 40):
        scores, truth = rng.normal(size=(size, 3)), rng.choice([-1, 0, 1], (size, 3), p=[0.5, 0.2, 0.3])
        truth[0] = 1
        found = mean_average_precision(torch.from_numpy(scores), torch.from_numpy(truth))
        assert found == pytest.approx(np.mean([definition(scores[:, k], truth[:, k]) for k in range(3)]), abs=1e-6)
