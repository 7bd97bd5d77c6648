"""Modulated deformable convolution (DCN v2, arXiv 1811.11168, equation 1) without a compiler.

A tap ``k`` of the kernel reads the map at ``p * stride - padding + k * dilation + offset`` by bilinear interpolation,
zero outside the map, times the tap's mask. Offsets of a tap are ``(y, x)``, taps in raster order.

Shapes: ``B`` batch, ``C`` input channels, ``D`` output channels, ``G`` deformable groups, ``K = kh * kw`` taps,
``H, W`` input size, ``P, Q`` output size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution with a mask.

    Args:
        input: ``(B, C, H, W)``.
        offset: ``(B, 2 * G * K, P, Q)`` in pixels of the input, ``(y, x)`` for each tap.
        mask: ``(B, G * K, P, Q)``, as it is to be multiplied (after any sigmoid).
        weight: ``(D, C // groups, kh, kw)``.
        bias: ``(D,)`` or None.
        stride, padding, dilation: one number, or ``(vertical, horizontal)``.
        groups: groups of channels that are convolved apart.
        deform_groups: ``G``, groups of channels that have offsets and masks of their own.

    Returns:
        Tensor: ``(B, D, P, Q)``.

    Raises:
        ValueError: shapes do not fit together.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    size = _check(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    batch, channels = input.shape[:2]
    out_channels, _, kh, kw = weight.shape
    taps = kh * kw
    index, corner_weight = _corners(offset, mask, input.shape, size, (kh, kw), stride, padding, dilation, deform_groups)

    table = input.permute(0, 2, 3, 1).reshape(-1, channels // deform_groups)  # (B*H*W*G, C/G)
    columns = F.embedding_bag(
        index.reshape(-1, 4), table, per_sample_weights=corner_weight.reshape(-1, 4).to(table.dtype), mode='sum'
    )  # (B*P*Q*K*G, C/G)
    columns = columns.reshape(batch * size[0] * size[1], taps, groups, channels // groups)
    # (groups, B*P*Q, K * C/groups) times (groups, K * C/groups, D/groups)
    columns = columns.permute(2, 0, 1, 3).reshape(groups, -1, taps * (channels // groups))
    kernel = weight.reshape(groups, out_channels // groups, channels // groups, taps)
    kernel = kernel.permute(0, 3, 2, 1).reshape(groups, taps * (channels // groups), out_channels // groups)
    output = torch.bmm(columns, kernel.to(columns.dtype))
    output = output.permute(1, 0, 2).reshape(batch, *size, out_channels)  # (B, P, Q, D)
    if bias is not None:
        output = output + bias
    return output.permute(0, 3, 1, 2)


def _corners(
    offset: Tensor,
    mask: Tensor,
    shape: torch.Size,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    deform_groups: int,
) -> tuple[Tensor, Tensor]:
    """Rows of the table and weights of the four pixels around each sampling point, both ``(B, P, Q, K, G, 4)``."""
    batch, _, height, width = shape
    groups, taps = deform_groups, kernel[0] * kernel[1]
    dtype = torch.float64 if offset.dtype == torch.float64 else torch.float32  # bf16 cannot count to 257
    offset = offset.reshape(batch, groups, taps, 2, *size).to(dtype)
    mask = mask.reshape(batch, groups, taps, *size).to(dtype)

    def grid(axis: int) -> Tensor:
        tap = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        tap = tap[:, None].expand(kernel) if axis == 0 else tap.expand(kernel)
        place = torch.arange(size[axis], device=offset.device) * stride[axis] - padding[axis]
        place = place[:, None].expand(size) if axis == 0 else place.expand(size)
        return tap.reshape(taps, 1, 1) + place  # (K, P, Q)

    y, x = grid(0) + offset[:, :, :, 0], grid(1) + offset[:, :, :, 1]  # (B, G, K, P, Q)
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)  # False for NaN
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.floor(), x.floor()
    dy, dx = y - top, x - left
    top, left = top.long(), left.long()
    image = torch.arange(batch, device=offset.device).reshape(-1, 1, 1, 1, 1)
    group = torch.arange(groups, device=offset.device).reshape(-1, 1, 1, 1)
    index, weight = [], []
    for row, wy in ((top, 1 - dy), (top + 1, dy)):
        for column, wx in ((left, 1 - dx), (left + 1, dx)):
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            pixel = (image * height + row.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
            index.append(pixel * groups + group)
            weight.append(torch.where(there, wy * wx * mask, 0))
    order = (0, 3, 4, 2, 1, 5)  # (B, G, K, P, Q, 4) to (B, P, Q, K, G, 4)
    return torch.stack(index, -1).permute(order), torch.stack(weight, -1).permute(order)


def _check(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> tuple[int, int]:
    """The output size ``(P, Q)``, after a check of all shapes."""
    for name, tensor in (('input', input), ('offset', offset), ('mask', mask), ('weight', weight)):
        if tensor.dim() != 4:
            raise ValueError(f'{name} has shape {tuple(tensor.shape)}, expected four axes')
    batch, channels, height, width = input.shape
    out_channels, in_channels, kh, kw = weight.shape
    if channels != in_channels * groups or out_channels % groups or channels % deform_groups:
        raise ValueError(
            f'weight {tuple(weight.shape)}, groups={groups} and deform_groups={deform_groups} do not fit '
            f'an input of {channels} channels: it needs groups * weight.shape[1] of them, a multiple of deform_groups'
        )
    size = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip((height, width), padding, dilation, (kh, kw), stride, strict=True)
    )
    if min(size) < 1:
        raise ValueError(
            f'the map is {height}x{width}, too small for a {kh}x{kw} kernel with padding {padding} and '
            f'dilation {dilation}; pad the map or use a smaller kernel'
        )
    for name, tensor, planes in (('offset', offset, 2), ('mask', mask, 1)):
        expected = (batch, planes * deform_groups * kh * kw, *size)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f'{name} has shape {tuple(tensor.shape)}, expected {expected}: the output size of this '
                f'convolution and {planes} number(s) a tap and deformable group'
            )
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f'bias has shape {tuple(bias.shape)}, expected {(out_channels,)}')
    return size
