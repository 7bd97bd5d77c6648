"""RoI align (Mask R-CNN, arXiv 1703.06870, section 3) with the semantics of mmcv's compiled operator.

A region is divided into ``P x Q`` bins; a bin is the mean (or maximum) of bilinear samples on a regular grid in it.
A mean is one weighted sum of pixels (:mod:`.rows`), so samples are never stored.

Shapes: ``B`` batch, ``C`` channels, ``H, W`` map, ``N`` regions, ``P, Q`` bins, ``S`` samples a bin.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.utils import _pair

from .precision import at_least_float32
from .rows import sum_rows


@dataclass(frozen=True)
class RoIGrid:
    """Sampling grid of RoI align.

    Attributes:
        output_size: ``(P, Q)``.
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples a bin and axis; 0: as many as the bin has pixels, rounded up.
        aligned: whether pixel centres are at half-integers; False: the older rule, with regions of at least one pixel.
    """

    output_size: tuple[int, int]
    spatial_scale: float = 1.0
    sampling_ratio: int = 0
    aligned: bool = True


@dataclass(frozen=True)
class Samples:
    """Samples of a group of regions that have the same number of samples.

    Attributes:
        regions: ``(n,)`` indices of the regions.
        y, x: ``(n * P * Q, S)`` coordinates of the samples on the map.
        index: ``(n * P * Q, S, 4)`` the four pixels around each sample, as rows of the map ``(B * H * W, C)``.
        weight: ``(n * P * Q, S, 4)`` bilinear weights of these pixels; 0 for samples outside the map.
    """

    regions: Tensor
    y: Tensor
    x: Tensor
    index: Tensor
    weight: Tensor


def roi_align(
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = 'avg',
    aligned: bool = True,
) -> Tensor:
    """Pool features of regions (RoI align); differentiable in ``input``.

    Args:
        input: ``(B, C, H, W)``.
        rois: ``(N, 5)``: image index, ``x1, y1, x2, y2`` in pixels of the image.
        output_size: ``(P, Q)`` or one number.
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples a bin and axis; 0: as many as the bin has pixels, rounded up.
        pool_mode: ``'avg'`` or ``'max'``.
        aligned: whether pixel centres are at half-integers.

    Returns:
        Tensor: ``(N, C, P, Q)``.

    Raises:
        ValueError: wrong shapes, an image index outside the batch, a region of negative size with ``aligned``, or an
            unknown mode.
    """
    if pool_mode not in ('avg', 'max'):
        raise ValueError(f"pool_mode {pool_mode!r} is unknown, choose 'avg' or 'max'")
    grid = RoIGrid(_pair(output_size), spatial_scale, sampling_ratio, aligned)
    table = pixel_rows(input)
    output = table.new_zeros(len(rois), *grid.output_size, table.shape[1])  # (N, P, Q, C)
    for samples in sample_regions(input.shape, rois, grid):
        pool = bin_means if pool_mode == 'avg' else bin_maxima
        pooled = pool(table, samples).reshape(-1, *grid.output_size, table.shape[1])
        output = output.index_copy(0, samples.regions, pooled)
    return output.permute(0, 3, 1, 2).to(input.dtype)


def pixel_rows(input: Tensor) -> Tensor:
    """The map ``(B, C, H, W)`` as rows of pixels ``(B * H * W, C)``, at least float32."""
    return at_least_float32(input.permute(0, 2, 3, 1).flatten(0, 2))


def bin_means(table: Tensor, samples: Samples) -> Tensor:
    """Mean of the samples of each bin, ``(n * P * Q, C)``."""
    weight = samples.weight / samples.weight.shape[1]
    return sum_rows(table, samples.index.flatten(1), weight.flatten(1))  # (n * P * Q, S * 4)


def bin_samples(table: Tensor, samples: Samples) -> Tensor:
    """Values of all samples, ``(n * P * Q, S, C)``."""
    values = sum_rows(table, samples.index.flatten(0, 1), samples.weight.flatten(0, 1))
    return values.reshape(*samples.y.shape, -1)


def bin_maxima(table: Tensor, samples: Samples) -> Tensor:
    """Maximum of the samples of each bin, ``(n * P * Q, C)``."""
    return bin_samples(table, samples).amax(1)


def sample_regions(shape: torch.Size, rois: Tensor, grid: RoIGrid) -> Iterator[Samples]:
    """Yield the samples of all regions, grouped by their number; regions without samples are left out.

    Args:
        shape: shape of the map, ``(B, C, H, W)``.
        rois: ``(N, 5)``.
        grid: the sampling grid.

    Raises:
        ValueError: see :func:`roi_align`.
    """
    _check(shape, rois)
    rois = at_least_float32(rois.detach())
    first, last = (rois[:, k : k + 2] * grid.spatial_scale - 0.5 * grid.aligned for k in (1, 3))  # (N, 2): x, y
    size = last - first
    if not grid.aligned:
        size = size.clamp(min=1)
    elif (size < 0).any():
        worst = int((size < 0).any(1).nonzero()[0])
        raise ValueError(f'region {worst} is {rois[worst].tolist()}, expected x2 >= x1 and y2 >= y1')
    bins = size / size.new_tensor(grid.output_size[::-1])
    counts = torch.full_like(bins, grid.sampling_ratio) if grid.sampling_ratio > 0 else bins.ceil()
    if not counts.isfinite().all():
        worst = int((~counts.isfinite()).any(1).nonzero()[0])
        raise ValueError(
            f'region {worst} is {rois[worst].tolist()}, expected finite numbers; the network that proposed it diverged'
        )
    for count in counts.unique(dim=0) if len(rois) else ():
        nx, ny = (int(n) for n in count)
        if nx < 1 or ny < 1:
            continue  # a region without area: 0
        regions = (counts == count).all(1).nonzero()[:, 0]
        xs, ys = (
            sample_coords(first[regions, k], bins[regions, k], n, cells)
            for k, n, cells in ((0, nx, grid.output_size[1]), (1, ny, grid.output_size[0]))
        )
        first_pixel = rois[regions, 0].long() * (shape[2] * shape[3])
        yield sample_grid(regions, ys, xs, first_pixel, *shape[2:])


def sample_coords(first: Tensor, bin_size: Tensor, count: int, cells: int) -> Tensor:
    """Coordinates of samples along one axis, ``(n, cells, count)``."""
    cell = torch.arange(cells, device=first.device).reshape(-1, 1) * bin_size[:, None, None]  # (n, cells, 1)
    within = (torch.arange(count, device=first.device) + 0.5) * bin_size[:, None, None] / count
    return first[:, None, None] + cell + within


def sample_grid(
    regions: Tensor, ys: Tensor, xs: Tensor, first_pixel: Tensor, height: int | Tensor, width: int | Tensor
) -> Samples:
    """Samples at all pairs of ``ys (n, P, ny)`` and ``xs (n, Q, nx)``, the vertical ones slowest.

    Args:
        regions: ``(n,)`` indices of the regions.
        ys, xs: coordinates on the map of each region.
        first_pixel: ``(n,)`` rows of the table in which the maps of the regions begin.
        height, width: size of the map; ``(n, 1, 1)``: of each region's.
    """
    (low_y, high_y, dy, there_y), (low_x, high_x, dx, there_x) = (
        _neighbours(coords, size) for coords, size in ((ys, height), (xs, width))
    )
    full = (ys.shape[0], ys.shape[1], xs.shape[1], ys.shape[2], xs.shape[2])  # (n, P, Q, ny, nx)

    def vertical(t: Tensor) -> Tensor:
        return t[:, :, None, :, None].expand(full)

    def horizontal(t: Tensor) -> Tensor:
        return t[:, None, :, None, :].expand(full)

    start = first_pixel[:, None, None]  # (n, 1, 1)
    index, weight = [], []
    for row, wy in ((low_y, (1 - dy) * there_y), (high_y, dy * there_y)):
        line = start + row * width  # (n, P, ny)
        for column, wx in ((low_x, (1 - dx) * there_x), (high_x, dx * there_x)):
            index.append(vertical(line) + horizontal(column))
            weight.append(vertical(wy) * horizontal(wx))
    rows, per_bin = full[0] * full[1] * full[2], full[3] * full[4]
    return Samples(
        regions=regions,
        y=vertical(ys).reshape(rows, per_bin),
        x=horizontal(xs).reshape(rows, per_bin),
        index=torch.stack(index, -1).reshape(rows, per_bin, 4),
        weight=torch.stack(weight, -1).reshape(rows, per_bin, 4),
    )


def bilinear_neighbours(y: Tensor, x: Tensor, shape: torch.Size) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield row, column and bilinear weight of the four pixels around each point, in the shape of ``y``."""
    (low_y, high_y, dy, there_y), (low_x, high_x, dx, there_x) = (
        _neighbours(coords, size) for coords, size in ((y, shape[2]), (x, shape[3]))
    )
    for row, wy in ((low_y, (1 - dy) * there_y), (high_y, dy * there_y)):
        for column, wx in ((low_x, (1 - dx) * there_x), (high_x, dx * there_x)):
            yield row, column, wy * wx


def _neighbours(coords: Tensor, size: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lower and upper pixel beside each coordinate, the weight of the upper, and whether the coordinate is valid.

    A coordinate up to a pixel outside takes the value at the border; NaN is invalid.
    """
    there = (coords >= -1) & (coords <= size)
    coords = torch.where(there, coords, 0).clamp(min=0).clamp(max=size - 1)
    low = coords.floor()
    return low.long(), (low + 1).clamp(max=size - 1).long(), coords - low, there


def _check(shape: torch.Size, rois: Tensor) -> None:
    if len(shape) != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f'input has shape {tuple(shape)} and rois {tuple(rois.shape)}, expected (B, C, H, W) and (N, 5)'
        )
    if len(rois) and not 0 <= int(rois[:, 0].min()) <= int(rois[:, 0].max()) < shape[0]:
        raise ValueError(
            f'rois name images {int(rois[:, 0].min())} to {int(rois[:, 0].max())}, expected 0 to {shape[0] - 1}'
        )
