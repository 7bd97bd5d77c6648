"""mmcv's own functions reach our operators, with values and gradients."""

import mmcv.ops
import pytest
import torch

from florence_mm.compat import mmcv_ext
from florence_mm.ops import boxes as box_ops
from florence_mm.ops import mmcv_operators
from florence_mm.ops.deform_conv import modulated_deform_conv2d
from florence_mm.ops.focal_loss import sigmoid_focal_loss
from florence_mm.ops.roi_align import roi_align


def same(theirs, ours, inputs, seed=0):
    """Equal outputs, and equal gradients of all inputs."""
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed))
    pairs = zip(torch.autograd.grad(theirs, inputs, grad), torch.autograd.grad(ours, inputs, grad), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def convolution(out_size, offset_size, bias=True):
    torch.manual_seed(0)
    tensors = [
        torch.randn(2, 4, *out_size),
        torch.randn(2, 2 * 2 * 9, *offset_size),
        torch.rand(2, 2 * 9, *offset_size),
        torch.randn(6, 2, 3, 3),
        torch.randn(6),
    ]
    return [t.requires_grad_() for t in tensors]


def test_modulated_deform_conv():
    tensors = convolution((5, 7), (5, 7))
    settings = (1, 2, 2, 2, 2)  # stride, padding, dilation, groups, deform_groups
    same(mmcv.ops.modulated_deform_conv2d(*tensors, *settings), modulated_deform_conv2d(*tensors, *settings), tensors)
    tensors.pop()
    theirs = mmcv.ops.modulated_deform_conv2d(*tensors, None, *settings)
    same(theirs, modulated_deform_conv2d(*tensors, None, *settings), tensors)


def test_gradients_are_added_to_what_is_there():
    # the compiled operators add; mmcv hands them tensors of zeros, others may not
    torch.manual_seed(0)
    x, offset, mask = torch.randn(2, 3, 4, 4), torch.randn(2, 18, 4, 4), torch.rand(2, 9, 4, 4)
    weight, bias, grad = torch.randn(5, 3, 3, 3), torch.randn(5), torch.randn(2, 5, 4, 4)
    sizes = {f'{name}_{axis}': 1 for name in ('stride', 'pad', 'dilation') for axis in 'hw'}

    def deform(*targets):
        mmcv_operators.modulated_deform_conv_backward(
            x, weight, bias, None, offset, mask, None, *targets, grad,
            group=1, deformable_group=1, with_bias=True, **sizes,
        )  # fmt: skip

    rois = torch.tensor([[0.0, 0.3, 0.2, 3.1, 2.9], [1.0, 1.2, 0.4, 2.7, 3.3]])
    ys, xs = torch.rand(2, 3, 2, 2) * 3, torch.rand(2, 3, 2, 2) * 3

    def align(mode):
        return lambda target: mmcv_operators.roi_align_backward(
            grad[:, :3, :2, :2].contiguous(), rois, ys, xs, target, 2, 2, 1.0, 2, mode, True
        )

    for backward, shapes in (
        (deform, (x, weight, bias, offset, mask)),
        (align(0), (x,)),
        (align(1), (x,)),
    ):
        once = [torch.zeros_like(t) for t in shapes]
        backward(*once)
        assert all(t.any() for t in once)
        onto = [torch.ones_like(t) for t in shapes]
        backward(*onto)
        torch.testing.assert_close(onto, [t + 1 for t in once])


def test_offsets_of_a_larger_map_are_read_flat():
    tensors = convolution((3, 4), (6, 8))
    input, offset, mask, weight, bias = tensors
    theirs = mmcv.ops.modulated_deform_conv2d(*tensors, 1, 1, 1, 2, 2)
    flat = offset.flatten(1)[:, : 36 * 12].reshape(2, 36, 3, 4), mask.flatten(1)[:, : 18 * 12].reshape(2, 18, 3, 4)
    same(theirs, modulated_deform_conv2d(input, *flat, weight, bias, 1, 1, 1, 2, 2), tensors)


@pytest.mark.skipif(mmcv_ext.is_compiled(), reason='the compiled operator reads beyond the tensor; runs with mmcv-lite')
def test_offsets_of_a_smaller_map_are_an_error():
    tensors = convolution((6, 8), (3, 4))
    with pytest.raises(ValueError, match=r'offset has shape \(2, 36, 3, 4\), expected 2 images of at least 1728'):
        mmcv.ops.modulated_deform_conv2d(*tensors, 1, 1, 1, 2, 2)


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align(mode):
    torch.manual_seed(0)
    input = torch.randn(2, 3, 8, 9, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 2, 12, 14], [1, -3, -3, 8, 6], [1, 4, 4, 30, 30]])
    for ratio, aligned in ((0, True), (2, False)):
        arguments = (rois, (2, 3), 0.5, ratio, mode, aligned)
        same(mmcv.ops.roi_align(input, *arguments), roi_align(input, *arguments), [input])


@pytest.mark.skipif(mmcv_ext.is_compiled(), reason='the compiled operator gives -10000 there; runs with mmcv-lite')
def test_the_largest_of_a_region_without_area_is_zero_and_moves_nothing():
    input = torch.ones(1, 2, 4, 4, requires_grad=True)
    pooled = mmcv.ops.roi_align(input, torch.tensor([[0.0, 2, 2, 2, 2]]), (2, 2), 1.0, 0, 'max', True)
    pooled.sum().backward()
    assert pooled.abs().max() == 0
    assert input.grad.abs().max() == 0


def boxes():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=generator) * 60
    side = torch.rand(50, 2, generator=generator) * 30
    return torch.cat([corner, corner + side], 1), torch.rand(50, generator=generator)


def test_nms_with_threshold_and_limit():
    box, score = boxes()
    dets, index = mmcv.ops.nms(box, score, 0.3, score_threshold=0.2, max_num=5)
    chosen = (score > 0.2).nonzero()[:, 0]
    expected = chosen[box_ops.nms(box[chosen], score[chosen], 0.3)][:5]
    assert torch.equal(index, expected)
    assert torch.equal(dets, torch.cat([box, score[:, None]], 1)[expected])


def test_nms_of_nothing():
    dets, index = mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert (dets.shape, index.shape) == ((0, 5), (0,))


def test_batched_nms_keeps_classes_apart():
    box, score = boxes()
    label = torch.arange(50) % 3
    _, index = mmcv.ops.batched_nms(box, score, label, dict(type='nms', iou_threshold=0.3))
    expected = [(label == k).nonzero()[:, 0] for k in range(3)]
    expected = torch.cat([members[box_ops.nms(box[members], score[members], 0.3)] for members in expected])
    assert sorted(index.tolist()) == sorted(expected.tolist())
    assert (score[index].diff() <= 0).all()


def test_soft_nms():
    box, score = boxes()
    for method in box_ops.SOFT_METHODS:
        dets, index = mmcv.ops.soft_nms(box, score, 0.3, 0.5, 0.1, method)
        ours, expected = box_ops.soft_nms(box, score, 0.3, 0.5, 0.1, method)
        assert torch.equal(index, expected)
        torch.testing.assert_close(dets, ours)


@pytest.mark.skipif(mmcv_ext.is_compiled(), reason='compiled mmcv has it for CUDA only; runs with mmcv-lite')
def test_sigmoid_focal_loss():
    torch.manual_seed(0)
    logits, target, weight = torch.randn(20, 4, requires_grad=True), torch.randint(0, 5, (20,)), torch.rand(4)
    for given in (None, weight):
        theirs = mmcv.ops.sigmoid_focal_loss(logits, target, 1.5, 0.3, given, 'none')
        same(theirs, sigmoid_focal_loss(logits, target, given, 1.5, 0.3), [logits])


def test_every_operator_said_to_be_provided_is_there():
    for path in mmcv_ext.PROVIDED.values():
        module, _, name = path.partition(':')
        assert module == mmcv_operators.__name__
        assert callable(getattr(mmcv_operators, name))


@pytest.mark.skipif(mmcv_ext.is_compiled(), reason='a compiled mmcv has the operator; runs with mmcv-lite')
def test_the_others_say_what_is_missing():
    with pytest.raises(NotImplementedError, match="'box_iou_rotated' of mmcv is not compiled here; install"):
        mmcv.ops.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
