import pytest
import torch

from florence_mm.evaluation.functional.roc import roc_auc


def by_pairs(scores, positive):
    """By the definition: the share of pairs of a positive and a negative in which the positive is higher."""
    above = scores[positive][:, None] - scores[~positive][None]
    return float(((above > 0).double() + 0.5 * (above == 0).double()).mean())


def test_values_by_hand():
    positive = torch.tensor([True, True, False, False])
    assert roc_auc(torch.tensor([0.9, 0.8, 0.2, 0.1]), positive) == 1.0
    assert roc_auc(torch.tensor([0.1, 0.2, 0.8, 0.9]), positive) == 0.0
    assert roc_auc(torch.tensor([0.9, 0.2, 0.8, 0.1]), positive) == 0.75
    assert roc_auc(torch.full((4,), 0.5), positive) == 0.5


def test_ties_count_one_half_as_in_all_pairs():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 20, (300,), generator=generator).double()
    positive = torch.rand(300, generator=generator) < 0.3
    assert roc_auc(scores, positive) == pytest.approx(by_pairs(scores, positive), abs=1e-12)


@pytest.mark.parametrize(
    ('scores', 'positive', 'sentence'),
    [
        ([0.5, 0.1], [True], r'scores \(2,\) and positive \(1,\) must be'),
        ([0.5, float('nan')], [True, False], 'a score is NaN'),
        ([0.5, 0.1], [True, True], 'there are 2 positives and 0 negatives'),
        ([], [], 'there are 0 positives and 0 negatives'),
    ],
)
def test_what_has_no_area_is_refused(scores, positive, sentence):
    with pytest.raises(ValueError, match=sentence):
        roc_auc(torch.tensor(scores), torch.tensor(positive, dtype=torch.bool))
