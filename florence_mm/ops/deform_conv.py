"""Modulated deformable convolution (DCN v2, arXiv 1811.11168, equation 1) in plain torch.

Kernel tap ``k`` samples the map bilinearly at ``p * stride - padding + k * dilation + offset``, zero outside the map,
and multiplies by its mask. Offsets of a tap are ``(y, x)``, taps in raster order.

Shapes: ``B`` batch, ``C`` input channels, ``D`` output channels, ``G`` deformable groups, ``K = kh * kw`` taps,
``H, W`` input size, ``P, Q`` output size.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.modules.utils import _pair

from florence_mm.compat import mmcv_ext

from .deform_sampling import Geometry, convolve, convolve_traced, convolve_unsampled
from .exported import deform_conv2d, is_kept_whole
from .inference import is_recorded


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
    """Convolve with learned offsets and masks per kernel tap (modulated deformable convolution).

    Args:
        input: ``(B, C, H, W)``.
        offset: ``(B, 2 * G * K, P, Q)`` in pixels of the input, ``(y, x)`` for each tap.
        mask: ``(B, G * K, P, Q)``, the factor itself (after any sigmoid).
        weight: ``(D, C // groups, kh, kw)``.
        bias: ``(D,)`` or None.
        stride, padding, dilation: one number, or ``(vertical, horizontal)``.
        groups: groups of the convolution.
        deform_groups: ``G``, groups of input channels with their own offsets and masks.

    Returns:
        Tensor: ``(B, D, P, Q)``.

    Raises:
        ValueError: shapes do not fit together.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    size = _check(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    dtype = _compute_dtype(input, weight)
    compiled = _compiled_kernel(input.device.type, dtype)
    if compiled is not None:
        offset, mask, bias = offset.to(dtype), mask.to(dtype), None if bias is None else bias.to(dtype)
        return compiled(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    if is_kept_whole():
        bias = None if bias is None else bias.to(dtype)
        operands = (input.to(dtype), offset, mask, weight.to(dtype), bias)
        return deform_conv2d(*operands, stride, padding, dilation, groups, deform_groups)
    geometry = Geometry(size, tuple(weight.shape[2:]), stride, padding, dilation, groups, deform_groups)
    input, weight = input.to(dtype), weight.to(dtype)
    if input.device.type == 'meta':
        output = convolve_unsampled(input, offset, mask, weight, geometry)
    else:
        output = (convolve_traced if is_recorded() else convolve)(input, offset, mask, weight, geometry)
    return output if bias is None else output + bias.to(dtype).reshape(-1, 1, 1)


def _compute_dtype(input: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype of the product and the result: autocast's, else the wider of the two."""
    device = input.device.type
    if device != 'meta' and torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return torch.promote_types(input.dtype, weight.dtype)


def _compiled_kernel(device: str, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """mmcv's compiled operator if it supports the device and dtype and is faster, else None."""
    if device != 'cuda' or dtype == torch.bfloat16 or torch.compiler.is_compiling() or not mmcv_ext.is_compiled():
        return None  # on a CPU the compiled operator is a scalar loop; no kernel of it knows bfloat16
    import mmcv.ops  # compiled mmcv is optional, and slow to import

    cuda = mmcv.ops.get_compiling_cuda_version()
    return None if cuda == 'not available' else mmcv.ops.modulated_deform_conv2d


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
    """Check all shapes and return the output size ``(P, Q)``."""
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
