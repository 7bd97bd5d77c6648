"""Fast paths that read the weights of layers: the results are those of the layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_mm.ops import inference, patches
from florence_mm.ops.inference import add_mlp, convolve, is_gelu, is_plain, is_untouched
from florence_mm.ops.mkldnn_products import has_bfloat16_products, has_mkldnn, linear_add
from florence_mm.ops.patches import embed_patches

BF16 = torch.bfloat16


def convolution(stride=2):
    torch.manual_seed(0)
    return nn.Conv2d(8, 16, 3, stride, 1).requires_grad_(False)


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 8, height, width, generator=generator).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def all_are_kept(monkeypatch):
    monkeypatch.setattr(inference, '_KEPT', 0)


@pytest.mark.usefixtures('all_are_kept')
class TestConvolution:
    @torch.no_grad()
    def test_equals_the_layer_in_every_size(self):
        layer = convolution()
        for size in ((14, 14), (7, 9), (14, 14), (33, 2)):
            torch.testing.assert_close(convolve(layer, picture(*size)), layer(picture(*size)))
        assert layer in inference._packed
        x = picture(7, 9).to(BF16)
        torch.testing.assert_close(convolve(layer.to(BF16), x), layer(x))

    @torch.no_grad()
    @pytest.mark.parametrize(
        'change', [lambda p: p.mul_(2), lambda p: p.data.mul_(2), lambda p: p.data.copy_(p.data.flip(0))]
    )
    def test_notices_a_changed_weight(self, change):
        layer = convolution()
        before = convolve(layer, picture(8, 8))
        change(layer.weight)
        after = convolve(layer, picture(8, 8))
        torch.testing.assert_close(after, layer(picture(8, 8)))
        assert not torch.equal(after, before)

    def test_gives_gradients_and_leaves_other_layers_alone(self):
        layer = convolution().requires_grad_()
        convolve(layer, picture(8, 8)).sum().backward()
        assert layer.weight.grad is not None and layer not in inference._packed
        with torch.no_grad():
            for other in (nn.Conv2d(8, 4, 3, padding='same'), nn.Conv2d(8, 4, 3, padding_mode='reflect', padding=1)):
                assert torch.equal(convolve(other, picture(8, 8)), other(picture(8, 8)))
                assert other not in inference._packed


def mlp(dims=16):
    """Two layers that pass on their input."""
    layers = nn.Linear(dims, dims), nn.Linear(dims, dims)
    for layer in layers:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return [layer.to(BF16).requires_grad_(False) for layer in layers]


@torch.no_grad()
@pytest.mark.skipif(
    not has_bfloat16_products(), reason='runs on processors that multiply in bfloat16: others run the layers'
)
def test_bfloat16_has_the_exact_gelu():
    x = torch.linspace(-4, 4, 64 * 16).view(64, 16).to(BF16)
    # its approximation by tanh is off by a hundredth at -3
    assert torch.equal(add_mlp(torch.zeros_like(x), x, *mlp()), F.gelu(x.float()).to(BF16))


@torch.no_grad()
@pytest.mark.parametrize('rows', [1, 7, 200])
def test_bfloat16_rounds_no_more_than_the_layers(rows):
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(24, 96).to(BF16), nn.Linear(96, 24).to(BF16)
    x, residual = torch.randn(rows, 24).to(BF16), torch.randn(rows, 24).to(BF16)
    exact = residual.double() + F.linear(
        F.gelu(F.linear(x.double(), fc1.weight.double(), fc1.bias.double())), fc2.weight.double(), fc2.bias.double()
    )
    plain = residual + fc2(F.gelu(fc1(x)))
    found = add_mlp(residual.clone(), x, fc1, fc2)
    assert found.dtype == BF16
    assert (found - exact).norm() <= (plain - exact).norm() * 1.001
    assert (found - exact).norm() / exact.norm() < 2**-8


@torch.no_grad()
def test_large_inputs_are_computed_in_parts(monkeypatch):
    monkeypatch.setattr('florence_mm.ops.inference._HIDDEN_ELEMENTS', 96 * 7)
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(24, 96).to(BF16), nn.Linear(96, 24).to(BF16)
    x, residual = torch.randn(50, 24).to(BF16), torch.randn(50, 24).to(BF16)
    expected = residual.double() + fc2.double()(F.gelu(fc1.double()(x.double())))
    found = add_mlp(residual.clone(), x, fc1.to(BF16), fc2.to(BF16))
    assert (found - expected).norm() / expected.norm() < 2**-8


@torch.no_grad()
@pytest.mark.skipif(not has_mkldnn(), reason='runs where PyTorch has oneDNN')
@pytest.mark.parametrize('rows', [1, 50])
def test_float32_by_onednn_is_the_layers(monkeypatch, rows):
    monkeypatch.setattr(inference, '_HIDDEN_ELEMENTS', 96 * 7)
    monkeypatch.setattr(inference, '_ONEDNN_ELEMENTS', 96 * 50)
    monkeypatch.setattr(inference, 'prefers_onednn', lambda: True)
    used = []
    monkeypatch.setattr(inference, 'linear_add', lambda *args: used.append(1) or linear_add(*args))
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(24, 96), nn.Linear(96, 24)
    x, residual = torch.randn(rows, 24), torch.randn(rows, 24)
    expected = residual + fc2(F.gelu(fc1(x)))
    torch.testing.assert_close(add_mlp(residual.clone(), x, fc1, fc2), expected, rtol=1e-5, atol=1e-6)
    assert len(used) == (0 if rows == 1 else 7)  # short ones by PyTorch's own products


class Double(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_plain_layers():
    assert is_plain(nn.Linear(2, 3, bias=False), nn.Conv2d(1, 1, 1))
    assert not is_plain(nn.Linear(2, 3), Double(2, 3)) and not is_plain(nn.LayerNorm(3))
    for add in ('register_forward_hook', 'register_forward_pre_hook', 'register_full_backward_hook'):
        layer = nn.Linear(2, 3)
        hook = getattr(layer, add)(lambda *_: None)
        assert not is_plain(layer) and not is_untouched(layer)
        hook.remove()
        assert is_plain(layer)
    layer.forward = lambda x: x
    assert not is_plain(layer)
    other = nn.Linear(2, 3)
    other.weight = nn.Parameter(torch.zeros(3, 2).as_subclass(Traced), requires_grad=False)
    assert not is_plain(other)
    assert is_gelu(nn.GELU()) and not is_gelu(nn.GELU(approximate='tanh'))
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_plain(nn.Linear(2, 3))
    hook.remove()
    assert is_plain(nn.Linear(2, 3))


class Traced(torch.Tensor):
    """A tensor of another class, as of torchao's quantized weights."""


@torch.no_grad()
@pytest.mark.skipif(not has_mkldnn(), reason='runs where PyTorch has oneDNN')
def test_patches_are_those_of_the_convolution(monkeypatch):
    monkeypatch.setattr(patches, 'prefers_onednn', lambda: True)
    layer = nn.Conv2d(8, 24, 4, 4)
    calls = []
    monkeypatch.setattr(patches, 'product', lambda *args: calls.append(1) or F.linear(*args))
    for size in ((8, 12), (11, 15)):  # the second with a rest that is in no patch
        torch.testing.assert_close(embed_patches(layer, picture(*size)), layer(picture(*size)))
    assert len(calls) == 2
    for other in (nn.Conv2d(8, 24, 4, 2), nn.Conv2d(8, 24, 4, 4, padding=1), nn.Conv2d(8, 24, 4, 4, groups=2)):
        assert torch.equal(embed_patches(other, picture(8, 8)), other(picture(8, 8)))
    assert len(calls) == 2
