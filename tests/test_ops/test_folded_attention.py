"""Attention of queries that read tokens themselves equals that to projected keys and values."""

import pytest
import torch
from torch import nn

from florence_mm.models.layers import transformer
from florence_mm.models.layers.fusion_layer import FusionLayer
from florence_mm.models.layers.transformer import CrossAttention, folding_allowed, folding_pays
from florence_mm.ops.attention import written_out_attention
from florence_mm.ops.folded_attention import folded_attention

BATCH, HEADS, LENGTH, DIMS, COUNT, CHANNELS = 3, 4, 5, 6, 11, 7


def projected(query, tokens, layer, mask=None, dropout_p=0.0):
    keys_values = layer(tokens).unflatten(2, (2, HEADS, DIMS)).permute(2, 0, 3, 1, 4)
    return written_out_attention(query, *keys_values, mask, dropout_p=dropout_p)


def masks():
    real = torch.arange(COUNT) < torch.tensor([COUNT, 4, 1])[:, None]
    places = torch.rand(BATCH, 1, LENGTH, COUNT) < 0.5
    places[..., 2] = True
    return {'none': None, 'padding': real[:, None, None], 'each query': places}


def values_and_gradients(attend, dtype, bias, mask, dropout_p=0.0):
    torch.manual_seed(0)
    layer = nn.Linear(CHANNELS, 2 * HEADS * DIMS, bias, dtype=dtype)
    query = torch.randn(BATCH, LENGTH, HEADS, DIMS, dtype=dtype).transpose(1, 2).requires_grad_()
    tokens = torch.randn(BATCH, COUNT, CHANNELS, dtype=dtype, requires_grad=True)
    towards = torch.randn(BATCH, HEADS, LENGTH, DIMS, dtype=dtype)
    torch.manual_seed(1)
    out = attend(query, tokens, layer, mask, dropout_p)
    return [out, *torch.autograd.grad((out * towards).sum(), [query, tokens, *layer.parameters()])]


@pytest.mark.parametrize('mask', ['none', 'padding', 'each query'])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_keys_and_values(dtype, bias, mask):
    torch.manual_seed(2)
    mask = masks()[mask]
    got = values_and_gradients(folded_attention, dtype, bias, mask)
    expected = values_and_gradients(projected, dtype, bias, mask)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for own, other in zip(got, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)
    if bias:
        assert got[-1][: HEADS * DIMS].count_nonzero() == 0  # a bias of keys changes no weight


def test_dropped_weights_are_those_of_keys_and_values():
    # both draw for (B, H, L, S) in the same order
    got, expected = (values_and_gradients(way, torch.float64, True, None, 0.3) for way in (folded_attention, projected))
    for own, other in zip(got, expected, strict=True):
        torch.testing.assert_close(own, other)
    assert not torch.allclose(got[0], values_and_gradients(folded_attention, torch.float64, True, None)[0])


def test_each_gradient_alone_is_that_of_all():
    tensors = {}
    for name in ('query', 'tokens', 'weight'):
        torch.manual_seed(0)
        layer = nn.Linear(CHANNELS, 2 * HEADS * DIMS).requires_grad_(name == 'weight')
        query = torch.randn(BATCH, HEADS, LENGTH, DIMS).requires_grad_(name == 'query')
        tokens = torch.randn(BATCH, COUNT, CHANNELS).requires_grad_(name == 'tokens')
        tensors[name] = query if name == 'query' else tokens if name == 'tokens' else layer.weight
        for way in (folded_attention, projected):
            tensors[name, way] = torch.autograd.grad(way(query, tokens, layer).square().sum(), tensors[name])[0]
        torch.testing.assert_close(tensors[name, folded_attention], tensors[name, projected])


def test_fewer_multiplications_decide():
    blip2 = nn.Linear(1408, 2 * 768)
    assert folding_pays(32, 257, 12, blip2)  # 568 and 347 million
    assert not folding_pays(64, 257, 12, blip2)  # a set of 64 would need 694 million
    assert not folding_pays(1, 257, 12, nn.Linear(64, 128))  # fewer, but few in any case
    assert folding_pays(20, 577, 12, nn.Linear(768, 1536)) and not folding_pays(50, 577, 12, nn.Linear(768, 1536))


def test_only_what_nobody_touched_is_folded():
    layer, tokens = nn.Linear(8, 16), torch.zeros(3, 8)
    assert folding_allowed(tokens, layer)
    assert not folding_allowed(tokens.bfloat16(), layer)
    assert not folding_allowed(tokens.bfloat16(), nn.Linear(8, 16, dtype=torch.bfloat16))
    with torch.autocast('cpu', torch.bfloat16):
        assert not folding_allowed(tokens, layer)
    assert not folding_allowed(tokens, nn.utils.parametrizations.weight_norm(nn.Linear(8, 16)))
    layer.register_forward_hook(lambda *_: None)
    assert not folding_allowed(tokens, layer)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(transformer, '_SAVED', 1)


@pytest.mark.parametrize('learns', [True, False])
def test_a_layer_chooses_and_gives_the_same(monkeypatch, always, learns):
    torch.manual_seed(0)
    layer = FusionLayer(16, 4, drop_rate=0.0, attn_drop_rate=0.0, context_dims=40).train(learns)
    x, context = torch.randn(3, 2, 16), torch.randn(3, 9, 40)
    real = torch.arange(9) < torch.tensor([9, 3, 5])[:, None]
    calls = []
    keys_values = CrossAttention.keys_values
    monkeypatch.setattr(CrossAttention, 'keys_values', lambda *args: calls.append(1) or keys_values(*args))

    def run():
        layer.zero_grad()
        with torch.set_grad_enabled(learns):
            out = layer(x, context, context_mask=real)
        if not learns:
            return [out]
        out.square().sum().backward()
        return [out, *(parameter.grad for parameter in layer.parameters())]

    folded = run()
    assert not calls
    monkeypatch.setattr(transformer, '_FEWER', 100)
    plain = run()
    assert calls
    for own, other in zip(folded, plain, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_compiled_and_exported_layers_project(always):
    layer = FusionLayer(16, 4, context_dims=40).eval()
    x, context = torch.randn(3, 2, 16), torch.randn(3, 9, 40)
    with torch.no_grad():
        program = torch.export.export(layer, (x, context)).module()
        torch.testing.assert_close(program(x, context), layer(x, context), rtol=1e-5, atol=1e-5)
