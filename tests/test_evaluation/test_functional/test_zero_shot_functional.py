import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from florence_mm.evaluation.functional import per_class_accuracy, target_ranks, topk_accuracy


def test_ranks_by_hand():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]])
    labels = torch.tensor([1, 1, 1, 0, 1])
    # right; last of three; second; a tie goes to the lower index, as with argmax
    assert target_ranks(scores, labels).tolist() == [0, 2, 1, 0, 1]
    assert scores.argmax(1)[3:].tolist() == [0, 0]


def test_constant_scores_are_no_better_than_chance():
    ranks = target_ranks(torch.zeros(100, 10), torch.arange(100) % 10)
    assert topk_accuracy(ranks, 1) == 0.1
    assert topk_accuracy(ranks, 5) == 0.5


def test_nan_is_never_right():
    scores = torch.tensor([[1.0, float('nan')], [float('nan'), 1.0], [1.0, 0.0]])
    ranks = target_ranks(scores, torch.tensor([0, 0, 0]))
    assert [topk_accuracy(ranks, k) for k in (1, 2, 5)] == [1 / 3] * 3


@pytest.mark.parametrize('seed', range(3))
def test_equals_sklearn(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (300,), generator=generator)
    scores = torch.randn(300, 7, generator=generator) + torch.nn.functional.one_hot(labels, 7)
    ranks = target_ranks(scores, labels)
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(labels, scores, k=k)
        assert topk_accuracy(ranks, k) == pytest.approx(expected, abs=1e-12)
    accuracy, counts = per_class_accuracy(ranks, labels, 7)
    assert accuracy.mean().item() == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert counts.tolist() == np.bincount(labels, minlength=7).tolist()


def test_per_class_by_hand():
    accuracy, counts = per_class_accuracy(torch.tensor([0, 1, 0, 0]), torch.tensor([0, 0, 2, 2]), 4)
    assert accuracy[[0, 2]].tolist() == [0.5, 1.0]
    assert accuracy[[1, 3]].isnan().all()
    assert counts.tolist() == [2, 0, 2, 0]


def test_shapes_are_checked():
    for scores, labels in (((2, 3), (3,)), ((2,), (2,)), ((2, 3), (2, 1))):
        with pytest.raises(ValueError, match=r'must be \(N, K\) and \(N,\)'):
            target_ranks(torch.zeros(scores), torch.zeros(labels, dtype=torch.int64))
    for label in (-1, 3):
        with pytest.raises(ValueError, match='must be within 3 classes'):
            target_ranks(torch.zeros(1, 3), torch.tensor([label]))
