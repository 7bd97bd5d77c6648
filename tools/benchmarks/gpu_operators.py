"""Operators on the device beside the CPU: results and gradients in fp32 and bf16, for gpu.py.

The CPU computes in fp32 on the same numbers, rounded to bf16 first where the device computes in bf16. A difference is
the largest, relative to the largest value of the CPU's result (at least 1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from gpu_common import FAILURES, Row, Setting, first_line
from torch import Tensor, nn

from florence_mm.ops import inference
from florence_mm.ops.attention import attention, prefixed_attention, window_attention
from florence_mm.ops.boxes import box_iou, nms, soft_nms
from florence_mm.ops.contrastive import unified_contrastive_loss
from florence_mm.ops.deform_conv import modulated_deform_conv2d
from florence_mm.ops.distilled_contrastive import distilled_contrastive_loss
from florence_mm.ops.dual_attention import channel_attention, edge_plan, edge_window_attention
from florence_mm.ops.focal_loss import sigmoid_focal_loss
from florence_mm.ops.linear import product
from florence_mm.ops.linear_focal_loss import linear_focal_loss
from florence_mm.ops.nearest_contrastive import nearest_contrastive_loss
from florence_mm.ops.optimal_transport import transport_costs
from florence_mm.ops.position import resize_position_embedding, resize_relative_position_table
from florence_mm.ops.pyramid_roi_align import pyramid_roi_align
from florence_mm.ops.regions import crop_regions, region_means
from florence_mm.ops.roi_align import roi_align
from florence_mm.ops.rows import sum_rows
from florence_mm.ops.windows import from_windows, relative_position_bias, to_windows, window_plan

#: Largest differences that are right; sums of products are rounded in another order.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}
#: Files of florence_mm/ops that have no operator of their own for a GPU, and why.
WITHOUT = {
    'collectives': 'between processes',
    'deform_sampling': 'within deform_conv',
    'detected_regions': 'choices on the CPU, and roi_align',
    'exported': 'for exported graphs',
    'folded_attention': 'within cross-attention, on a CPU',
    'learning_bias': 'within window attention, on a CPU',
    'mkldnn_products': "oneDNN's, on a CPU",
    'mmcv_operators': "the same operators under mmcv's names",
    'patches': 'on a CPU',
    'precision': 'types, no values',
    'recomputed': 'training on a CPU',
    'resizing': 'pictures of numpy',
    'traced_windows': 'for traced graphs',
}


@dataclass(frozen=True)
class Case:
    """An operator and its inputs.

    Attributes:
        file: of florence_mm/ops, without extension.
        name: of the case.
        inputs: names and shapes of inputs drawn from the normal distribution, which have gradients.
        call: the operator, of these inputs and of a function that brings further tensors to their device.
        bf16: whether it is also tried in bf16; choices such as those of NMS change with rounding.
        gradients: whether gradients are compared.
    """

    file: str
    name: str
    inputs: dict[str, tuple[int, ...]]
    call: Callable[..., object]
    bf16: bool = True
    gradients: bool = True


def _boxes(corners: Tensor) -> Tensor:
    """Boxes in a picture of 64 pixels from any numbers ``(N, 4)``."""
    places = corners.detach().float().sigmoid() * 40
    return torch.cat([places[:, :2], places[:, :2] + 4 + places[:, 2:] / 2], 1)


def _regions(corners: Tensor) -> Tensor:
    boxes = _boxes(corners)
    return torch.cat([(torch.arange(len(boxes), device=boxes.device) % 2)[:, None].to(boxes), boxes], 1)


def _contrastive(image: Tensor, text: Tensor, on: Callable) -> tuple[Tensor, Tensor]:
    image, text = nn.functional.normalize(image, dim=1), nn.functional.normalize(text, dim=1)
    return unified_contrastive_loss(image, text, on(torch.arange(len(image)) % 5), on(torch.tensor(14.0)))


def _distilled(queries: Tensor, keys: Tensor, on: Callable) -> Tensor:
    queries, keys = nn.functional.normalize(queries, dim=1), nn.functional.normalize(keys, dim=1)
    positives = on(torch.arange(len(queries))[:, None] % 8 == torch.arange(len(keys)) % 8)
    return distilled_contrastive_loss(queries, queries + 0.1, keys, positives, on(torch.tensor(0.07)), 0.4)


def _linear_focal(x: Tensor, weight: Tensor, bias: Tensor, on: Callable) -> Tensor:
    labels = torch.arange(len(x)) % (len(weight) + 1)
    return linear_focal_loss(x, weight, bias, labels, on(torch.ones(len(x)))) / len(x)


def _windows(x: Tensor, on: Callable) -> Tensor:
    plan = window_plan((6, 9), (4, 4), (2, 2), x.device)
    return from_windows(to_windows(x, plan) * 2, plan)


def _mlp(residual: Tensor, x: Tensor, first: Tensor, second: Tensor, on: Callable) -> Tensor:
    fc1, fc2 = (nn.Linear(*weight.shape[::-1], bias=False).to(weight) for weight in (first, second))
    fc1.weight.data, fc2.weight.data = first, second
    return inference.add_mlp(residual.clone(), x, fc1, fc2)


def _kept(x: Tensor, scores: Tensor, on: Callable) -> Tensor:
    return nms(_boxes(x), scores.detach().float(), 0.3)


def _edges(qkv: Tensor, zeros: Tensor, on: Callable) -> Tensor:
    return edge_window_attention(qkv, zeros, edge_plan(2, (5, 7), 4).groups, 2)


CASES = (
    Case('dual_attention', 'attention in windows at the edges', {'qkv': (70, 24), 'zeros': (24,)}, _edges),
    Case(
        'dual_attention',
        'attention between channels',
        {'qkv': (2, 35, 24)},
        lambda qkv, on: channel_attention(qkv, 2, 35**-0.5),
    ),
    Case(
        'optimal_transport',
        'alignment of masked sets',
        {'x': (3, 6, 16), 'y': (3, 9, 16)},
        lambda x, y, on: transport_costs(x, y, on(torch.arange(6) < 4)[None].expand(3, 6)),
    ),
    Case(
        'nearest_contrastive',
        'contrast of images of several vectors',
        {'image': (6, 3, 8), 'text': (6, 8)},
        lambda image, text, on: torch.stack(
            nearest_contrastive_loss(image, text, on(torch.arange(6)), on(torch.tensor(2.0)), 0.1)
        ),
    ),
    Case('attention', 'attention', dict.fromkeys('qkv', (2, 4, 20, 16)), lambda q, k, v, on: attention(q, k, v)),
    Case(
        'attention',
        'attention, masked',
        dict.fromkeys('qkv', (2, 4, 20, 16)),
        lambda q, k, v, on: attention(q, k, v, on(torch.arange(20) < 13)[None, None, None]),
    ),
    Case(
        'attention',
        'attention, causal',
        dict.fromkeys('qkv', (2, 4, 20, 16)),
        lambda q, k, v, on: attention(q, k, v, causal=True),
    ),
    Case(
        'attention',
        'window attention',
        {'qkv': (2, 4 * 49, 3 * 64), 'bias': (2, 49, 49)},
        lambda qkv, bias, on: window_attention(qkv, bias, 2),
    ),
    Case(
        'attention',
        'window attention, shifted',
        {'qkv': (2, 4 * 49, 3 * 64), 'bias': (2, 49, 49)},
        lambda qkv, bias, on: window_attention(
            qkv, bias, 2, -100.0 * on(torch.arange(4 * 49 * 49).reshape(4, 49, 49) % 3 == 1).to(qkv)
        ),
    ),
    Case('boxes', 'IoU of boxes', {'x': (30, 4)}, lambda x, on: box_iou(_boxes(x), _boxes(-x)), False, False),
    Case('boxes', 'NMS', {'x': (60, 4), 'scores': (60,)}, _kept, False, False),
    Case(
        'boxes',
        'soft NMS',
        {'x': (60, 4), 'scores': (60,)},
        lambda x, scores, on: soft_nms(_boxes(x), scores.detach().float().sigmoid())[0],
        False,
        False,
    ),
    Case('contrastive', 'UniCL loss', {'image': (64, 32), 'text': (64, 32)}, _contrastive),
    # keys get no gradient
    Case(
        'distilled_contrastive',
        "BLIP's contrastive loss",
        {'queries': (16, 32), 'keys': (48, 32)},
        _distilled,
        gradients=False,
    ),
    Case(
        'deform_conv',
        'deformable convolution',
        {'x': (2, 16, 12, 10), 'offset': (2, 18, 12, 10), 'mask': (2, 9, 12, 10), 'weight': (8, 16, 3, 3)},
        lambda x, offset, mask, weight, on: modulated_deform_conv2d(x, offset, mask.sigmoid(), weight / 12, padding=1),
    ),
    Case(
        'focal_loss',
        'focal loss',
        {'x': (40, 7)},
        lambda x, on: sigmoid_focal_loss(x, on(torch.arange(40) % 8)),
    ),
    Case(
        'attention',
        'attention behind a prefix',
        {**dict.fromkeys('qkv', (4, 4, 20, 16)), **dict.fromkeys('xy', (2, 4, 30, 16))},
        lambda q, k, v, x, y, on: prefixed_attention(q, k, v, x, y, causal=True),
    ),
    Case('inference', 'quick GELU', {'x': (40, 8)}, lambda x, on: inference.quick_gelu(x)),
    Case(
        'inference',
        'MLP with residual sum',
        {'residual': (40, 32), 'x': (40, 32), 'first': (64, 32), 'second': (32, 64)},
        lambda residual, x, first, second, on: _mlp(residual, x, first / 6, second / 8, on),
        gradients=False,
    ),
    Case(
        'linear',
        'product',
        {'x': (40, 32), 'weight': (16, 32)},
        lambda x, weight, on: product(x, weight / 6),
        gradients=False,
    ),
    Case('linear_focal_loss', 'linear focal loss', {'x': (50, 16), 'w': (7, 16), 'b': (7,)}, _linear_focal),
    Case(
        'position',
        'position embedding, resized',
        {'x': (1, 49, 8)},
        lambda x, on: resize_position_embedding(x, (9, 9), (7, 7)),
    ),
    Case(
        'position',
        'bias table, resized',
        {'table': (169, 3)},
        lambda table, on: resize_relative_position_table(table, (12, 12)),
    ),
    Case(
        'regions',
        'crops',
        {'image': (3, 64, 64), 'x': (5, 4)},
        lambda image, x, on: crop_regions(image, _boxes(x), (16, 16)),
        False,
        False,
    ),
    Case(
        'pyramid_roi_align',
        'RoI align on a pyramid',
        {'fine': (2, 8, 16, 16), 'coarse': (2, 8, 8, 8), 'x': (6, 4)},
        lambda fine, coarse, x, on: pyramid_roi_align((fine, coarse), _boxes(x).unflatten(0, (2, 3)), (4, 8), 7, 2, 8),
        False,
        False,
    ),
    Case(
        'regions',
        'means of regions',
        {'maps': (8, 16, 16), 'x': (5, 4)},
        lambda maps, x, on: region_means(maps, _boxes(x), (4, 4)),
        False,
        False,
    ),
    Case(
        'roi_align',
        'RoI align, mean',
        {'maps': (2, 8, 16, 16), 'x': (6, 4)},
        lambda maps, x, on: roi_align(maps, _regions(x), 7, 0.25),
        False,
        False,
    ),
    Case(
        'roi_align',
        'RoI align, maximum',
        {'maps': (2, 8, 16, 16), 'x': (6, 4)},
        lambda maps, x, on: roi_align(maps, _regions(x), 7, 0.25, 2, 'max'),
        False,
        False,
    ),
    Case(
        'rows',
        'weighted sums of rows',
        {'table': (30, 8), 'weight': (20, 4)},
        lambda table, weight, on: sum_rows(table, on(torch.arange(80).reshape(20, 4) % 30), weight),
    ),
    Case('windows', 'partition into windows', {'x': (2, 54, 8)}, _windows),
    Case(
        'windows',
        'relative position bias',
        {'table': (169, 3)},
        lambda table, on: relative_position_bias(table, (7, 7)),
    ),
)


def compute(case: Case, device: torch.device, dtype: torch.dtype, rounded: torch.dtype) -> list[Tensor]:
    """Results and gradients of a case on a device, as fp32 on the CPU; inputs are rounded to a type before."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randn(shape, generator=generator).to(rounded).to(device, dtype).requires_grad_(case.gradients)
        for name, shape in case.inputs.items()
    }
    with torch.set_grad_enabled(case.gradients):
        found = case.call(*inputs.values(), lambda tensor: tensor.to(device))
    outs = [found] if isinstance(found, Tensor) else list(found)
    grads: list[Tensor] = []
    if case.gradients:
        factors = [torch.randn(out.shape, generator=generator).to(device, out.dtype) for out in outs]
        grads = list(torch.autograd.grad(outs, list(inputs.values()), factors))
    return [tensor.detach().float().cpu() for tensor in (*outs, *grads)]


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of two lists of tensors, each relative to the largest expected value, at least 1."""
    if [one.shape for one in found] != [one.shape for one in expected]:
        return float('inf')
    differences = [
        ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()
        for a, b in zip(found, expected, strict=True)
        if b.numel()
    ]
    return max(differences, default=0.0)


def operators(setting: Setting) -> Iterator[Row]:
    """Every operator on the device against the CPU; one that differs too much fails the run."""
    wrong = []
    worst = dict.fromkeys(TOLERANCES, 0.0)
    for case in CASES:
        for dtype, most in TOLERANCES.items():
            if dtype is torch.bfloat16 and not case.bf16:
                continue
            name = f'{case.name}, {str(dtype).removeprefix("torch.")}'
            try:
                expected = compute(case, torch.device('cpu'), torch.float32, dtype)
                found = largest_difference(compute(case, setting.device, dtype, dtype), expected)
            except FAILURES as error:
                wrong.append(name)
                yield Row(name, note=f'failed, {type(error).__name__}: {first_line(error)}')
                continue
            worst[dtype] = max(worst[dtype], found)
            if not found <= most:  # a NaN is wrong, too
                wrong.append(name)
                yield Row(name, found, note=f'differs from the CPU by more than {most:g}')
    for dtype, found in worst.items():
        tried = sum(case.bf16 or dtype is torch.float32 for case in CASES)
        words = f'largest difference from the CPU, {tried} cases; right is at most {TOLERANCES[dtype]:g}'
        yield Row(f'operators, {str(dtype).removeprefix("torch.")}', found, note=words)
    if wrong:
        raise ValueError(f'{len(wrong)} cases are wrong: {", ".join(wrong)}')
