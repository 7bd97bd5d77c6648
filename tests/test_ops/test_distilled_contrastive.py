import pytest
import torch
from torch.nn import functional as F

from florence_mm.ops.distilled_contrastive import distilled_contrastive_loss

POSITIVES = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]).bool()


def rows(count, seed, channels=4):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64), dim=1)


def in_words(queries, teacher, keys, positives, temperature, alpha):
    """The formula, one number after the other."""
    total = 0
    for query, taught, right in zip(queries, teacher, positives, strict=True):
        own = torch.stack([query @ key / temperature for key in keys])
        soft = torch.stack([taught @ key / temperature for key in keys]).exp()
        for k in range(len(keys)):
            target = alpha * soft[k] / soft.sum() + (1 - alpha) * float(right[k]) / float(right.sum())
            total = total - target.detach() * (own[k] - own.exp().sum().log())
    return total / len(queries)


@pytest.mark.parametrize('alpha', [0.0, 0.4, torch.tensor(1.0)])
def test_it_is_the_formula(alpha):
    queries, temperature = rows(3, 0).requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    teacher, keys = rows(3, 1).requires_grad_(), rows(5, 2).requires_grad_()
    got = distilled_contrastive_loss(queries, teacher, keys, POSITIVES, temperature, alpha)
    expected = in_words(queries, teacher.detach(), keys.detach(), POSITIVES, temperature, alpha)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    leaves = (queries, temperature)
    wanted = torch.autograd.grad(expected, leaves)
    got.backward()
    torch.testing.assert_close((queries.grad, temperature.grad), wanted, rtol=1e-10, atol=1e-12)
    assert teacher.grad is None and keys.grad is None


def test_it_is_of_float32_under_autocast():
    leaves = [rows(count, seed).float() for seed, count in enumerate((3, 3, 5))]
    plain = distilled_contrastive_loss(*leaves, POSITIVES, torch.tensor(0.01), 0.4)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(distilled_contrastive_loss(*leaves, POSITIVES, torch.tensor(0.01), 0.4), plain)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'teacher_queries': torch.zeros(2, 4)}, r'queries have shape \(3, 4\), those of the teacher \(2, 4\)'),
        ({'keys': torch.zeros(5, 3)}, r'keys \(5, 3\); give \(queries, channels\)'),
        ({'positives': POSITIVES[:, :4]}, r'positives have shape \(3, 4\).*give bool of shape \(3, 5\)'),
        ({'positives': POSITIVES.float()}, 'type torch.float32; give bool'),
    ],
)
def test_bad_arguments(change, words):
    good = {'queries': rows(3, 0), 'teacher_queries': rows(3, 1), 'keys': rows(5, 2), 'positives': POSITIVES}
    with pytest.raises(ValueError, match=words):
        distilled_contrastive_loss(**{**good, **change}, temperature=torch.tensor(1.0), alpha=0.0)
