"""Replacements for the compiled operators ``mmcv._ext``, with their signatures: results are written into arguments.

``mmcv.ops`` calls them like the compiled ones, on any device. :mod:`florence_mm.compat.mmcv_ext` imports this module
at the first call.

Shapes: ``B`` batch, ``C`` channels, ``G`` deformable groups, ``K`` taps, ``P, Q`` output size, ``N`` boxes or samples.
"""

import torch
from torch import Tensor

from . import boxes as box_ops
from .deform_conv import modulated_deform_conv2d
from .focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_gradient
from .roi_align import RoIGrid, bilinear_neighbours, bin_means, bin_samples, pixel_rows, sample_regions
from .rows import scatter_rows

_NOWHERE = -2.0  # argmax of a region without samples: outside every map


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """NMS, see :func:`.boxes.nms`."""
    return box_ops.nms(boxes, scores, iou_threshold, offset)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft NMS (:func:`.boxes.soft_nms`): write boxes and scores to the first rows of ``dets (N, 5)``."""
    name = box_ops.SOFT_METHODS[method]
    result, index = box_ops.soft_nms(boxes, scores, iou_threshold, sigma, min_score, name, offset)
    dets[: len(result)] = result
    return index


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write :func:`.focal_loss.sigmoid_focal_loss` to ``output (N, C)``; an empty ``weight`` means None."""
    output.copy_(sigmoid_focal_loss(input, target, weight if weight.numel() else None, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write :func:`.focal_loss.sigmoid_focal_loss_gradient` to ``grad_input (N, C)``."""
    grad_input.copy_(sigmoid_focal_loss_gradient(input, target, weight if weight.numel() else None, gamma, alpha))


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write :func:`.roi_align.roi_align` to ``output (N, C, P, Q)``; mode 0 (max) also writes where the maxima lie."""
    size = (aligned_height, aligned_width)
    table = pixel_rows(input)
    for place in (argmax_y, argmax_x):
        place.fill_(_NOWHERE)
    for samples in sample_regions(input.shape, rois, RoIGrid(size, spatial_scale, sampling_ratio, aligned)):

        def put(target: Tensor, values: Tensor, regions: Tensor = samples.regions) -> None:
            target[regions] = values.reshape(-1, *size, table.shape[1]).permute(0, 3, 1, 2).to(target.dtype)

        if pool_mode == 1:
            put(output, bin_means(table, samples))
            continue
        largest, which = bin_samples(table, samples).max(1)  # (n * P * Q, C)
        put(output, largest)
        put(argmax_y, samples.y.gather(1, which))
        put(argmax_x, samples.x.gather(1, which))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input (B, C, H, W)``."""
    batch, channels, height, width = shape = grad_input.shape
    grid = RoIGrid((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if pool_mode == 1:
        for samples in sample_regions(shape, rois, grid):
            weight = samples.weight / samples.weight.shape[1]
            grad = pixel_rows(grad_output[samples.regions])  # (n * P * Q, C)
            spread = scatter_rows(grad, samples.index.flatten(1), weight.flatten(1), batch * height * width)
            grad_input += spread.reshape(batch, height, width, channels).permute(0, 3, 1, 2).to(grad_input.dtype)
        return
    # every channel has its own maximum, so the map is indexed as one flat row of numbers
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)  # (N, C)
    total = grad_input.new_zeros(grad_input.numel())
    for row, column, weight in bilinear_neighbours(argmax_y, argmax_x, shape):
        place = (plane[:, :, None, None] * height + row) * width + column  # (N, C, P, Q)
        total.index_add_(0, place.flatten(), (grad_output * weight).to(total.dtype).flatten())
    grad_input += total.reshape(shape)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    group: int,
    deformable_group: int,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Write :func:`.deform_conv.modulated_deform_conv2d` to ``output (B, D, P, Q)``; scratch tensors stay untouched."""
    offset, mask = (_read_flat(t, n, weight, output.shape, deformable_group) for t, n in ((offset, 2), (mask, 1)))
    bias = bias if with_bias else None
    output.copy_(_convolve(input, offset, mask, weight, bias, group, deformable_group, sizes))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    group: int,
    deformable_group: int,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward` to the ``grad_*`` tensors."""
    with torch.enable_grad():
        sources = [t.detach().requires_grad_() for t in (input, offset, mask, weight)]
        x, flat_offset, flat_mask, w = sources
        flat_offset = _read_flat(flat_offset, 2, weight, grad_output.shape, deformable_group)
        flat_mask = _read_flat(flat_mask, 1, weight, grad_output.shape, deformable_group)
        output = _convolve(x, flat_offset, flat_mask, w, None, group, deformable_group, sizes)
    grads = torch.autograd.grad(output, sources, grad_output)
    for target, grad in zip((grad_input, grad_offset, grad_mask, grad_weight), grads, strict=True):
        target += grad
    if with_bias:
        grad_bias += grad_output.sum((0, 2, 3))


def _convolve(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: int,
    deformable_group: int,
    sizes: dict[str, int],
) -> Tensor:
    """Call the convolution with mmcv's separate numbers (``stride_h``, ``stride_w`` ...) paired."""
    stride, padding, dilation = ((sizes[f'{k}_h'], sizes[f'{k}_w']) for k in ('stride', 'pad', 'dilation'))
    return modulated_deform_conv2d(
        input, offset, mask, weight, bias, stride, padding, dilation, group, deformable_group
    )


def _read_flat(tensor: Tensor, planes: int, weight: Tensor, shape: torch.Size, deform_groups: int) -> Tensor:
    """Reinterpret the first numbers of each image as ``(B, planes * G * K, P, Q)``.

    The compiled operator indexes offsets and masks by the output's size, whatever their own size is; public Dynamic
    Head weights were trained with the offsets of a larger map read in this way.
    """
    batch, _, *size = shape
    channels = planes * deform_groups * weight.shape[2] * weight.shape[3]
    needed = channels * size[0] * size[1]
    if tensor.shape[0] != batch or tensor[0].numel() < needed:
        name = ('mask', 'offset')[planes - 1]
        raise ValueError(
            f'{name} has shape {tuple(tensor.shape)}, expected {batch} images of at least {needed} numbers: '
            f'{channels} channels of {size[0]}x{size[1]}'
        )
    return tensor.flatten(1)[:, :needed].reshape(batch, channels, *size)
