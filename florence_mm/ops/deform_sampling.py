"""The arithmetic of modulated deformable convolution: bilinear sampling, then one matrix product.

A sample is a weighted sum of four pixels (:mod:`.rows`); the mask is multiplied into the weights at no cost.
Columns (the im2col matrix that the kernel multiplies) are built in chunks and rebuilt in the backward pass: sampling
costs a tenth of the matrix product, and storing the columns would take nine times the memory of the map.

Shapes: ``B`` batch, ``C`` input channels, ``D`` output channels, ``G`` deformable groups, ``K`` taps, ``H, W`` input
size, ``P, Q`` output size, ``R = B * P * Q`` rows of the product, ``g`` groups of the convolution.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import at_least_float32
from .rows import dot_rows, scatter_rows, sum_rows

_COLUMN_ELEMENTS = 1 << 22  # of a chunk: 16 MB in float32


@dataclass(frozen=True)
class Geometry:
    """The sizes that position the kernel taps: ``size`` is ``(P, Q)``, all pairs are ``(vertical, horizontal)``."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def convolve(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Convolve to ``(B, D, P, Q)``; columns are built in chunks, and rebuilt in the backward pass."""
    return _Convolve.apply(input, offset, mask, weight, geometry)


def convolve_traced(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """:func:`convolve` for ``torch.compile`` and ``torch.export``: plain operators, all columns at once, stored."""
    index, corner_weight = bilinear_corners(offset, mask, input.shape, geometry)
    columns = _columns(_table(input, geometry), index, corner_weight)
    return _to_map(_multiply(columns.to(weight.dtype), _kernel(weight, geometry), geometry), geometry)


def convolve_unsampled(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """:func:`convolve` of shapes on the meta device, on which multiply-adds and memory are counted."""
    return _Unsampled.apply(input, offset, mask, weight, geometry)


class _Unsampled(torch.autograd.Function):
    """The product of any columns, which keeps for a backward pass what :class:`_Convolve` does."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(input, offset, mask, weight)
        columns = input.new_empty(len(input) * math.prod(geometry.size), math.prod(geometry.kernel) * input.shape[1])
        return _to_map(_multiply(columns, _kernel(weight, geometry), geometry), geometry)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(x) for x in ctx.saved_tensors), None)


class _Convolve(torch.autograd.Function):
    """:func:`convolve` with a backward pass that stores the arguments only."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(input, offset, mask, weight)
        ctx.geometry = geometry
        with torch.autocast(input.device.type, enabled=False):
            index, corner_weight = bilinear_corners(offset, mask, input.shape, geometry)
            table, kernel = _table(input, geometry), _kernel(weight, geometry)
            output = input.new_empty(len(index), weight.shape[0])  # (R, D)
            for rows in _row_chunks(len(index), input, geometry):
                columns = _columns(table, index[rows], corner_weight[rows]).to(weight.dtype)
                output[rows] = _multiply(columns, kernel, geometry)
            return _to_map(output, geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, offset, mask, weight = ctx.saved_tensors
        geometry = ctx.geometry
        need_input, need_offset, need_mask, need_weight, _ = ctx.needs_input_grad
        need_points = need_offset or need_mask
        with torch.autocast(input.device.type, enabled=False):
            with torch.enable_grad():
                points = [t.detach().requires_grad_() for t in (offset, mask)]
                index, graph = bilinear_corners(*points, input.shape, geometry)
            corner_weight = graph.detach()
            table, kernel = _table(input, geometry), _kernel(weight, geometry)
            grad = grad_output.permute(0, 2, 3, 1).flatten(0, 2).to(weight.dtype)  # (R, D)
            grad_table = torch.zeros_like(table) if need_input else None
            grad_corner = torch.empty_like(corner_weight)
            grad_kernel = torch.zeros_like(kernel, dtype=table.dtype)
            # numbers per image
            outputs = geometry.size[0] * geometry.size[1]
            pixels = input.shape[2] * input.shape[3] * geometry.deform_groups
            for rows in _row_chunks(len(index), input, geometry):
                part = grad[rows].unflatten(1, (geometry.groups, -1)).transpose(0, 1)  # (g, rows, D/g)
                if need_weight:
                    columns = _columns(table, index[rows], corner_weight[rows]).to(weight.dtype)
                    grad_kernel += torch.bmm(part.transpose(1, 2), _grouped_columns(columns, geometry))
                if not (need_input or need_points):
                    continue
                grad_columns = _ungrouped_columns(torch.bmm(part, kernel), geometry).to(table.dtype)
                grad_columns = grad_columns.reshape(-1, table.shape[1])  # (rows * K * G, C/G)
                picked = index[rows].reshape(-1, 4)
                if need_points:
                    grad_corner[rows] = dot_rows(grad_columns, table, picked).reshape(len(part[0]), -1)
                if need_input:
                    # only the images that these rows belong to
                    first, last = rows.start // outputs * pixels, ((rows.stop - 1) // outputs + 1) * pixels
                    amount = corner_weight[rows].reshape(-1, 4)
                    grad_table[first:last] += scatter_rows(grad_columns, picked - first, amount, last - first)
            grad_offset, grad_mask = torch.autograd.grad(graph, points, grad_corner) if need_points else (None, None)
        if need_input:
            batch, channels, height, width = input.shape
            grad_table = grad_table.reshape(batch, height, width, channels).permute(0, 3, 1, 2).to(input.dtype)
        grad_weight = _kernel_gradient(grad_kernel, weight) if need_weight else None
        return grad_table, grad_offset, grad_mask, grad_weight, None


def bilinear_corners(offset: Tensor, mask: Tensor, shape: torch.Size, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Index (rows of the table) and weight of the four pixels around each sampling point, both ``(R, K * G * 4)``.

    NaN points and points a pixel or more outside the map get weight 0, as in the compiled operators.
    """
    batch, _, height, width = shape
    groups, size, device = geometry.deform_groups, geometry.size, offset.device
    taps = geometry.kernel[0] * geometry.kernel[1]
    dtype = torch.float64 if offset.dtype == torch.float64 else torch.float32  # bfloat16 cannot count to 257
    offset = offset.reshape(batch, groups, taps, 2, *size).to(dtype)
    mask = mask.reshape(batch, groups, taps, *size).to(dtype)

    def grid(axis: int) -> Tensor:
        shape = (-1, 1) if axis == 0 else (1, -1)
        tap = torch.arange(geometry.kernel[axis], device=device).reshape(shape) * geometry.dilation[axis]
        place = torch.arange(size[axis], device=device).reshape(shape) * geometry.stride[axis] - geometry.padding[axis]
        return tap.expand(geometry.kernel).reshape(taps, 1, 1) + place  # (K, P or 1, Q or 1)

    y, x = offset[:, :, :, 0] + grid(0), offset[:, :, :, 1] + grid(1)  # (B, G, K, P, Q)
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)  # False for NaN
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    dy, dx = y - top, x - left
    top, left = top.long(), left.long()
    image = torch.arange(batch, device=device).reshape(-1, 1, 1, 1, 1) * height
    group = torch.arange(groups, device=device).reshape(-1, 1, 1, 1)
    index, weight = [], []
    for row, wy in ((top, 1 - dy), (top + 1, dy)):
        wy = wy * (inside & (row >= 0) & (row < height)) * mask
        row = image + row.clamp(0, height - 1)
        for column, wx in ((left, 1 - dx), (left + 1, dx)):
            index.append((row * width + column.clamp(0, width - 1)) * groups + group)
            weight.append(wy * wx * ((column >= 0) & (column < width)))
    rows, points = batch * size[0] * size[1], taps * groups * 4
    order = (0, 3, 4, 2, 1, 5)  # (B, G, K, P, Q, 4) to (B, P, Q, K, G, 4)
    index = torch.stack(index, -1).permute(order).reshape(rows, points)
    return index, torch.stack(weight, -1).permute(order).reshape(rows, points)


def _row_chunks(rows: int, input: Tensor, geometry: Geometry) -> list[slice]:
    """Chunks of rows; 64 times as large on an accelerator."""
    elements = _COLUMN_ELEMENTS * (1 if input.device.type == 'cpu' else 64)
    step = max(1, elements // (geometry.kernel[0] * geometry.kernel[1] * input.shape[1]))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _table(input: Tensor, geometry: Geometry) -> Tensor:
    """The map ``(B, C, H, W)`` as pixel rows ``(B * H * W * G, C / G)``, at least float32; a view if channels-last."""
    channels = input.shape[1] // geometry.deform_groups
    return at_least_float32(input.permute(0, 2, 3, 1).reshape(-1, channels))


def _columns(table: Tensor, index: Tensor, corner_weight: Tensor) -> Tensor:
    """Sample the columns ``(rows, K * C)``, channels fastest."""
    columns = sum_rows(table, index.reshape(-1, 4), corner_weight.reshape(-1, 4))  # (rows * K * G, C/G)
    return columns.reshape(index.shape[0], -1)  # len() would fix a free number


def _kernel(weight: Tensor, geometry: Geometry) -> Tensor:
    """Reshape the weight ``(D, C/g, kh, kw)`` to ``(g, D/g, K * C/g)``, channels fastest as in the columns."""
    return weight.permute(0, 2, 3, 1).flatten(1).unflatten(0, (geometry.groups, -1))


def _kernel_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Reshape ``(g, D/g, K * C/g)`` back to the shape of ``weight``."""
    out_channels, channels, *kernel = weight.shape
    return grad.reshape(out_channels, *kernel, channels).permute(0, 3, 1, 2).to(weight.dtype)


def _grouped_columns(columns: Tensor, geometry: Geometry) -> Tensor:
    """Split columns ``(rows, K * C)`` by group, ``(g, rows, K * C/g)``; a view with one group."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    columns = columns.reshape(columns.shape[0], taps, geometry.groups, -1)  # (rows, K, g, C/g)
    return columns.permute(2, 0, 1, 3).flatten(2)


def _ungrouped_columns(columns: Tensor, geometry: Geometry) -> Tensor:
    """Join columns ``(g, rows, K * C/g)`` of all groups, ``(rows, K * C)``."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    return columns.unflatten(2, (taps, -1)).permute(1, 2, 0, 3).flatten(1)  # (rows, K, g, C/g) in between


def _multiply(columns: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """Multiply columns ``(rows, K * C)`` by the kernel: ``(rows, D)``."""
    product = torch.bmm(_grouped_columns(columns, geometry), kernel.transpose(1, 2))  # (g, rows, D/g)
    return product.transpose(0, 1).flatten(1)


def _to_map(output: Tensor, geometry: Geometry) -> Tensor:
    """Reshape the output ``(R, D)`` to ``(B, D, P, Q)``, channels-last in memory."""
    return output.reshape(-1, *geometry.size, output.shape[1]).permute(0, 3, 1, 2)
