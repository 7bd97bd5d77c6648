"""The chunked focal loss of a classifier against mmdet's dense one, finite differences, and what it leaves out."""

import pytest
import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from florence_mm.ops.linear_focal_loss import linear_focal_loss

CLASSES = 7


def problem(anchors=23, dtype=torch.float64):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((anchors, 5), (CLASSES, 5), 7))
    labels = torch.randint(0, CLASSES, (anchors,))
    labels[::2] = CLASSES  # background
    return x, weight, bias, labels, torch.rand(anchors, dtype=dtype)


def dense(x, weight, bias, labels, label_weights, alpha=0.25, gamma=2.0, counted=None):
    """mmdet's, with a one-hot target; ``counted (A, K)`` tells which terms there are."""
    target = torch.nn.functional.one_hot(labels, CLASSES + 1)[:, :CLASSES]
    terms = label_weights[:, None].expand(-1, CLASSES)
    if counted is not None:
        terms = terms * counted
    return py_sigmoid_focal_loss(x @ weight.t() + bias, target, terms, gamma, alpha, reduction='sum')


def outcome(loss, *inputs):
    return [loss, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize('chunk_elements', [1, 50, 10**6])
@pytest.mark.parametrize(('alpha', 'gamma'), [(0.25, 2.0), (0.6, 1.5)])
def test_value_and_gradients_equal_the_dense_loss(alpha, gamma, chunk_elements):
    args = problem()
    ours = linear_focal_loss(*args, alpha, gamma, chunk_elements=chunk_elements)
    torch.testing.assert_close(outcome(ours, *args[:3]), outcome(dense(*args, alpha, gamma), *args[:3]))


def test_one_anchor_by_hand():
    # one anchor of class 1 among two; logits 0 and 0: 0.75 * 0.25 * log 2 + 0.25 * 0.25 * log 2
    loss = linear_focal_loss(torch.ones(1, 1), torch.zeros(2, 1), torch.zeros(2), torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(0.25 * 0.6931472, rel=1e-6)


def test_finite_differences():
    x, weight, bias, labels, label_weights = problem(anchors=6)

    def loss(*inputs):
        return linear_focal_loss(*inputs, labels, label_weights, annotated=torch.tensor([5, 2]), chunk_elements=4)

    assert torch.autograd.gradcheck(loss, (x, weight, bias))


def test_classes_that_are_not_annotated_are_no_negatives():
    args = problem()
    x, weight, bias, labels, _ = args
    labels[labels == 4] = 1  # class 4 has no positive, class 1 has some and is not annotated
    annotated = torch.tensor([6, 0, 2])
    counted = torch.zeros(len(labels), CLASSES)
    counted[:, annotated] = 1
    counted[labels < CLASSES, labels[labels < CLASSES]] = 1
    ours = outcome(linear_focal_loss(*args, annotated=annotated), x, weight, bias)
    torch.testing.assert_close(ours, outcome(dense(*args, counted=counted), x, weight, bias))
    assert not ours[2][[3, 4, 5]][labels.bincount(minlength=8)[3:6] == 0].any()
    assert not ours[2][4].any() and ours[3][4] == 0  # exactly
    assert ours[2][1].abs().sum() > 0


def test_all_classes_listed_is_bit_for_bit_the_ordinary_loss():
    args = problem(dtype=torch.float32)
    listed = outcome(linear_focal_loss(*args, annotated=torch.arange(CLASSES)), *args[:3])
    assert all(torch.equal(a, b) for a, b in zip(listed, outcome(linear_focal_loss(*args), *args[:3]), strict=True))


def test_nothing_annotated_and_no_object_is_zero():
    x, weight, bias, labels, label_weights = problem()
    labels.fill_(CLASSES)
    loss = linear_focal_loss(x, weight, bias, labels, label_weights, annotated=torch.tensor([], dtype=torch.int64))
    assert [t.abs().max().item() for t in outcome(loss, x, weight, bias)] == [0, 0, 0, 0]


def test_extreme_logits_stay_finite():
    x = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss = linear_focal_loss(x, torch.ones(2, 1), torch.zeros(2), torch.tensor([0, 0]), torch.ones(2))
    # first anchor: one negative missed by 1e4; second: one positive missed by 1e4
    assert loss.item() == pytest.approx(0.75e4 + 0.25e4)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], torch.tensor([[0.75], [-0.25]]))


def test_under_autocast_logits_are_bf16_and_the_loss_fp32():
    args = problem(dtype=torch.float32)
    exact = outcome(linear_focal_loss(*args), *args[:3])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = linear_focal_loss(args[0].bfloat16(), *args[1:])
        got = outcome(loss, *args[:3])
    assert loss.dtype == torch.float32 and [g.dtype for g in got[1:]] == [torch.float32] * 3
    torch.testing.assert_close(got, exact, rtol=0.05, atol=0.02)
    assert not torch.equal(got[0], exact[0])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'x': torch.zeros(23, 4)}, r'features \(23, 4\), classifier \(7, 5\)'),
        ({'labels': torch.zeros(22, dtype=torch.int64)}, r'labels \(22,\)'),
        ({'annotated': torch.tensor([2, 7])}, 'annotated classes from 2 to 7, but the classifier has 7'),
        ({'labels': torch.full((23,), 8)}, 'label 8'),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, message):
    named = dict(zip(('x', 'weight', 'bias', 'labels', 'label_weights'), problem(dtype=torch.float32), strict=True))
    with pytest.raises(ValueError, match=message):
        linear_focal_loss(**{**named, **change})
