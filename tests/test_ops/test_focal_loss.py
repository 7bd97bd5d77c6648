"""Sigmoid focal loss against mmdet's, by hand, and its closed gradient against autograd."""

import math

import pytest
import torch

from florence_mm.ops.focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_gradient


def test_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, torch.tensor([1]), gamma=2, alpha=0.25)
    # class 0 is negative with p = 1/2, class 1 positive with p = 3/4
    assert loss.tolist() == [pytest.approx([0.75 * 0.25 * math.log(2), 0.25 / 16 * math.log(4 / 3)])]


def test_equals_mmdet():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    torch.manual_seed(0)
    logits, target = torch.randn(50, 7) * 4, torch.randint(0, 8, (50,))  # 7 is background
    one_hot = torch.nn.functional.one_hot(target, 8)[:, :7]
    reference = py_sigmoid_focal_loss(logits, one_hot, gamma=1.5, alpha=0.3, reduction='none')
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, gamma=1.5, alpha=0.3), reference)


def test_closed_gradient():
    torch.manual_seed(0)
    logits = (torch.randn(40, 5, dtype=torch.float64) * 5).requires_grad_()
    target, weight = torch.randint(0, 6, (40,)), torch.rand(5, dtype=torch.float64)
    (reference,) = torch.autograd.grad(sigmoid_focal_loss(logits, target, weight).sum(), logits)
    torch.testing.assert_close(sigmoid_focal_loss_gradient(logits, target, weight), reference)


def test_weights_belong_to_the_class_of_the_sample():
    logits, weight = torch.zeros(3, 2), torch.tensor([2.0, 5.0])
    ratio = sigmoid_focal_loss(logits, torch.tensor([0, 1, 2]), weight) / sigmoid_focal_loss(
        logits, torch.tensor([0, 1, 2])
    )
    assert ratio.tolist() == [[2, 2], [5, 5], [1, 1]]


def test_extreme_logits_stay_finite_and_an_empty_batch_is_empty():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    assert sigmoid_focal_loss_gradient(logits.detach(), torch.tensor([1])).isfinite().all()
    assert sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_logarithms_end_where_those_of_the_compiled_operator_do():
    # log of the smallest normal float32; without an end a logit of minus infinity would give 0 * infinity
    end = math.log(2.0**-126)
    logits = torch.tensor([[-200.0, 200.0], [-math.inf, math.inf]])
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor([[-0.25 * end, -0.75 * end]]).expand(2, 2))
    slope = sigmoid_focal_loss_gradient(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(slope, torch.tensor([[-0.25, 0.75]]).expand(2, 2))


def test_a_negative_label_is_background_with_a_weight_of_one():
    logits, weight = torch.tensor([[0.3, -0.2]]), torch.tensor([5.0, 7.0])
    for loss in (sigmoid_focal_loss, sigmoid_focal_loss_gradient):
        wanted = loss(logits, torch.tensor([2]))
        assert loss(logits, torch.tensor([-1]), weight).equal(wanted)
        assert loss(logits, torch.tensor([2]), weight).equal(wanted)


def test_a_logit_that_is_not_a_number_shows():
    loss = sigmoid_focal_loss(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    assert loss.isnan().tolist() == [[True, False]]


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r'target \(2,\), expected \(N, C\) and \(N,\)'):
        sigmoid_focal_loss(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r'weight has shape \(3,\), expected \(2,\)'):
        sigmoid_focal_loss(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.ones(3))
