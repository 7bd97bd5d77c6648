"""Deformable convolution against a loop over all that it sums, a plain convolution and finite differences."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from florence_mm.compat import mmcv_ext
from florence_mm.ops import deform_conv, deform_sampling
from florence_mm.ops.deform_conv import modulated_deform_conv2d


def make(batch, channels, height, width, out, kernel=3, stride=1, padding=1, dilation=1, groups=1, deform_groups=1):
    """Random arguments: tensors and keywords."""
    generator = torch.Generator().manual_seed(0)
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    p = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    q = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    tensors = [
        torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64),
        torch.randn(batch, 2 * deform_groups * kh * kw, p, q, generator=generator, dtype=torch.float64) * 2,
        torch.rand(batch, deform_groups * kh * kw, p, q, generator=generator, dtype=torch.float64),
        torch.randn(out, channels // groups, kh, kw, generator=generator, dtype=torch.float64),
        torch.randn(out, generator=generator, dtype=torch.float64),
    ]
    keywords = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, deform_groups=deform_groups)
    return tensors, keywords


def naive(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """Every output as a sum over taps and channels, every sample as a sum over all pixels of a hat function."""
    (batch, channels, height, width), (out, per_group, kh, kw) = input.shape, weight.shape
    p, q = offset.shape[2:]
    result = bias.reshape(1, -1, 1, 1).expand(batch, out, p, q).clone()
    rows, columns = torch.arange(height), torch.arange(width)
    for b, i, j, ky, kx, c in itertools.product(*map(range, (batch, p, q, kh, kw, channels))):
        tap = (c // (channels // deform_groups)) * kh * kw + ky * kw + kx
        y = i * stride - padding + ky * dilation + offset[b, 2 * tap, i, j]
        x = j * stride - padding + kx * dilation + offset[b, 2 * tap + 1, i, j]
        hat = (1 - (rows - y).abs()).clamp(min=0)[:, None] * (1 - (columns - x).abs()).clamp(min=0)
        sample = (input[b, c] * hat).sum() * mask[b, tap, i, j]
        group, member = c // per_group, c % per_group
        chosen = slice(group * (out // groups), (group + 1) * (out // groups))
        result[b, chosen, i, j] += weight[chosen, member, ky, kx] * sample
    return result


CASES = {
    'plain': dict(batch=2, channels=3, height=4, width=3, out=2),
    'stride 2': dict(batch=1, channels=2, height=6, width=5, out=3, stride=2),
    'groups': dict(batch=1, channels=4, height=4, width=5, out=6, groups=2, deform_groups=4, dilation=2, padding=2),
    'oblong kernel': dict(batch=1, channels=2, height=4, width=6, out=2, kernel=(1, 3), padding=0),
    'one pixel': dict(batch=2, channels=2, height=1, width=1, out=2),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_equals_the_loop_with_all_gradients(case, monkeypatch):
    tensors, keywords = make(**case)
    tensors = [t.requires_grad_() for t in tensors]
    reference = naive(*tensors, **keywords)
    grad = torch.randn(reference.shape, dtype=torch.float64)
    references = reference, *torch.autograd.grad(reference, tensors, grad)
    for elements in (1, 1 << 22):  # row by row, all rows at once
        monkeypatch.setattr(deform_sampling, '_COLUMN_ELEMENTS', elements)
        ours = modulated_deform_conv2d(*tensors, **keywords)
        for a, b in zip((ours, *torch.autograd.grad(ours, tensors, grad)), references, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize('case', [CASES['plain'], CASES['groups']], ids=['plain', 'groups'])
def test_finite_differences(case):
    tensors, keywords = make(**case)
    tensors = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: modulated_deform_conv2d(*t, **keywords), tensors, fast_mode=True)


def test_without_offsets_it_is_a_convolution():
    (input, offset, mask, weight, bias), keywords = make(2, 8, 9, 7, 4, stride=2, groups=2)
    ours = modulated_deform_conv2d(input, offset * 0, mask * 0 + 1, weight, bias, **keywords)
    torch.testing.assert_close(ours, F.conv2d(input, weight, bias, stride=2, padding=1, groups=2))


def test_whole_offsets_move_the_map_in_y_then_x():
    input = torch.arange(12.0).reshape(1, 1, 3, 4)
    offset = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 4)
    moved = modulated_deform_conv2d(input, offset, torch.ones(1, 1, 3, 4), torch.ones(1, 1, 1, 1))
    assert moved.tolist() == [[[[6, 7, 0, 0], [10, 11, 0, 0], [0, 0, 0, 0]]]]


def test_points_far_outside_or_not_a_number_read_zero_and_move_nothing():
    (input, offset, mask, weight, _), keywords = make(1, 2, 4, 4, 2)
    for value in (1e30, -1e30, math.inf, math.nan):
        far = torch.full_like(offset, value).requires_grad_()
        output = modulated_deform_conv2d(input, far, mask, weight, **keywords)
        output.sum().backward()
        assert output.abs().max() == 0
        assert far.grad.abs().max() == 0


def test_a_mask_that_is_not_a_number_shows():
    (input, offset, mask, weight, _), keywords = make(1, 2, 4, 4, 2)
    mask[0, 0, 1, 2] = math.nan
    bad = modulated_deform_conv2d(input, offset, mask, weight, **keywords).isnan()
    assert bad[0, :, 1, 2].all()
    assert bad.sum() == 2  # the place, in both channels


def test_an_empty_batch():
    tensors, keywords = make(1, 4, 6, 5, 3)
    input, offset, mask, weight, bias = (t.requires_grad_() for t in tensors)
    output = modulated_deform_conv2d(input[:0], offset[:0], mask[:0], weight, bias, **keywords)
    assert output.shape == (0, 3, 6, 5)
    output.sum().backward()
    assert weight.grad.abs().max() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_samples_at_full_precision(dtype):
    tensors, keywords = make(2, 16, 8, 300, 8)  # places beyond 256 do not exist in bfloat16
    tensors = [t.to(dtype) for t in tensors]
    exact = modulated_deform_conv2d(*(t.float() for t in tensors), **keywords)
    tensors = [t.requires_grad_() for t in tensors]
    ours = modulated_deform_conv2d(*tensors, **keywords)
    assert ours.dtype == dtype
    assert (ours.float() - exact).abs().max() < 8 * torch.finfo(dtype).eps * exact.abs().max()
    assert [g.dtype for g in torch.autograd.grad(ours.float().sum(), tensors)] == [dtype] * 5


def test_autocast_chooses_the_type_of_the_product():
    tensors, keywords = make(1, 4, 6, 5, 3)
    tensors = [t.float().requires_grad_() for t in tensors]
    with torch.autocast('cpu', torch.bfloat16):
        output = modulated_deform_conv2d(*tensors, **keywords)
    assert output.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(output.float().sum(), tensors))


def test_only_the_gradients_asked_for():
    tensors, keywords = make(1, 4, 6, 5, 3)
    full = [t.clone().requires_grad_() for t in tensors]
    wanted = torch.autograd.grad(modulated_deform_conv2d(*full, **keywords).square().sum(), full)
    for i, reference in enumerate(wanted):
        some = [t.clone().requires_grad_(i == j) for j, t in enumerate(tensors)]
        (grad,) = torch.autograd.grad(modulated_deform_conv2d(*some, **keywords).square().sum(), some[i])
        torch.testing.assert_close(grad, reference)


def test_it_saves_no_columns_for_the_backward_pass():
    tensors, keywords = make(2, 8, 9, 7, 4)
    tensors = [t.requires_grad_() for t in tensors[:4]]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        modulated_deform_conv2d(*tensors, **keywords)
    assert set(saved) == {t.data_ptr() for t in tensors}


def test_equal_runs_give_equal_bits():
    tensors, keywords = make(2, 8, 9, 7, 4)
    tensors = [t.float().requires_grad_() for t in tensors]
    runs = [torch.autograd.grad(modulated_deform_conv2d(*tensors, **keywords).sum(), tensors) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_compiles_without_a_graph_break():
    tensors, keywords = make(2, 4, 6, 5, 3)
    tensors = [t.requires_grad_() for t in tensors]
    compiled = torch.compile(lambda *t: modulated_deform_conv2d(*t, **keywords), fullgraph=True, backend='aot_eager')
    ours, eager = compiled(*tensors), modulated_deform_conv2d(*tensors, **keywords)
    torch.testing.assert_close(ours, eager)
    for a, b in zip(
        torch.autograd.grad(ours.sin().sum(), tensors), torch.autograd.grad(eager.sin().sum(), tensors), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_exports():
    class Model(torch.nn.Module):
        def forward(self, *tensors):
            return modulated_deform_conv2d(*tensors, **keywords)

    tensors, keywords = make(2, 4, 6, 5, 3)
    program = torch.export.export(Model(), tuple(tensors))
    torch.testing.assert_close(program.module()(*tensors), modulated_deform_conv2d(*tensors, **keywords))


@pytest.mark.parametrize(
    ('name', 'shape', 'words'),
    [
        ('input', (2, 5, 6, 5), '5 channels'),
        ('offset', (2, 17, 6, 5), r'offset has shape \(2, 17, 6, 5\), expected \(2, 18, 6, 5\)'),
        ('offset', (2, 18, 3, 5), r'expected \(2, 18, 6, 5\)'),
        ('mask', (1, 9, 6, 5), r'mask has shape \(1, 9, 6, 5\), expected \(2, 9, 6, 5\)'),
        ('weight', (3, 4, 9), 'weight .* expected four axes'),
        ('weight', (3, 4, 9, 9), 'the map is 6x5, too small for a 9x9 kernel'),
        ('bias', (4,), r'bias has shape \(4,\), expected \(3,\)'),
    ],
)
def test_shapes_that_do_not_fit(name, shape, words):
    tensors, keywords = make(2, 4, 6, 5, 3)
    arguments = dict(zip(('input', 'offset', 'mask', 'weight', 'bias'), tensors, strict=True))
    arguments[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=words):
        modulated_deform_conv2d(**arguments, **keywords)


def test_the_compiled_kernel_is_for_cuda_and_its_types(monkeypatch):
    import mmcv.ops

    choose = deform_conv._compiled_kernel
    assert choose('cuda', torch.float32) is None or mmcv_ext.is_compiled()
    monkeypatch.setattr(mmcv_ext, 'is_compiled', lambda: True)
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: '12.6')
    assert choose('cuda', torch.float32) is mmcv.ops.modulated_deform_conv2d
    assert choose('cuda', torch.bfloat16) is None
    assert choose('cpu', torch.float32) is None
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    assert choose('cuda', torch.float32) is None
