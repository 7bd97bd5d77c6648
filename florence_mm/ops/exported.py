"""Operators that an exported model keeps whole, as runtimes have them: deformable convolution and suppression of boxes.

Everything else is exported as torch's own operators. Within :func:`kept_whole` these two are recorded by name
(``florence_mm::deform_conv2d``, ``florence_mm::kept_by_nms``), which :mod:`florence_mm.export` translates to ONNX's
``DeformConv`` and ``NonMaxSuppression``; a program of ``torch.export`` runs them here.

Shapes: as in :mod:`~florence_mm.ops.deform_conv`; ``B`` images, ``N`` boxes of an image.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .boxes import nms
from .deform_sampling import Geometry, convolve

# in a list, as torch.compile reads no context variables
_WHOLE = [False]


@contextmanager
def kept_whole() -> Iterator[None]:
    """Record the operators of this file by name while a model is exported."""
    _WHOLE.append(True)
    try:
        yield
    finally:
        _WHOLE.pop()


def is_kept_whole() -> bool:
    """Whether operators are recorded by name."""
    return torch.compiler.is_exporting() and _WHOLE[-1]


@torch.library.custom_op('florence_mm::deform_conv2d', mutates_args=())
def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Modulated deformable convolution, ``(B, D, P, Q)``; sizes are ``[vertical, horizontal]``."""
    geometry = Geometry(
        tuple(offset.shape[2:]),
        tuple(weight.shape[2:]),
        *map(tuple, (stride, padding, dilation)),
        groups,
        deform_groups,
    )
    output = convolve(input, offset, mask, weight, geometry)
    return (output if bias is None else output + bias.reshape(-1, 1, 1)).contiguous()


@deform_conv2d.register_fake
def _deform_conv2d_shape(
    input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, *sizes: list[int] | int
) -> Tensor:
    return input.new_empty(input.shape[0], weight.shape[0], *offset.shape[2:])


@torch.library.custom_op('florence_mm::kept_by_nms', mutates_args=())
def kept_by_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes non-maximum suppression keeps in each image.

    Args:
        boxes: ``(B, N, 4)``, corners; boxes of different classes are apart.
        scores: ``(B, N)``; a box with 0 or less takes no part.
        iou_threshold: largest overlap of two kept boxes.

    Returns:
        ``(B, N)`` bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for image, (own, score) in enumerate(zip(boxes, scores, strict=True)):
        part = (score > 0).nonzero().squeeze(1)
        kept[image, part[nms(own[part], score[part], iou_threshold)]] = True
    return kept


@kept_by_nms.register_fake
def _kept_by_nms_shape(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
