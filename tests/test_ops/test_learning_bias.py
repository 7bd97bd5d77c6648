"""Operators that torch.compile does not see into: what it is told about them, and their gradients."""

import pytest
import torch

from florence_mm.ops import learning_bias
from florence_mm.ops.attention import window_attention
from florence_mm.ops.learning_bias import LearningBiasAttention, compiled_learning_bias

OPS = torch.ops.florence_mm


def drawn(*shape, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


@pytest.mark.parametrize('many', [0, 1 << 60], ids=['head by head', 'all heads at once'])
@pytest.mark.parametrize('masked, dropped', [(False, False), (True, True)])
def test_attention_written_out_and_its_gradients(monkeypatch, many, masked, dropped):
    monkeypatch.setattr(learning_bias, '_MANY_SCORES', many)
    qkv, bias = drawn(2, 2, 3, 12, grad=True), drawn(2, 3, 3, seed=3, grad=True)
    mask = drawn(2, 3, 3, seed=1) if masked else torch.zeros(2, 3, 3, dtype=torch.float64)
    keep = drawn(2, 2, 2, 3, 3, seed=2).gt(0) * 2.0 if dropped else None
    out = LearningBiasAttention.apply(qkv, bias, mask if masked else None, keep, 2)
    q, k, v = qkv.view(2, 2, 3, 3, 2, 2).permute(3, 4, 0, 1, 2, 5)  # (h, B, W, N, d) each
    weights = (q @ k.transpose(-2, -1) / 2**0.5 + bias[:, None, None] + mask).softmax(-1)
    expected = ((weights if keep is None else weights * keep) @ v).permute(1, 2, 3, 0, 4).flatten(-2)
    torch.testing.assert_close(out, expected)
    grad = drawn(*out.shape, seed=4)
    for found, right in zip(*(torch.autograd.grad(y, (qkv, bias), grad) for y in (out, expected)), strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize('masked, dropped', [(False, False), (True, True)])
def test_the_operator_is_the_function_with_its_gradients(masked, dropped):
    mask = drawn(2, 3, 3, seed=1) if masked else None
    keep = drawn(2, 2, 2, 3, 3, seed=2).gt(0) * 2.0 if dropped else None
    found = []
    for attend in (compiled_learning_bias, LearningBiasAttention.apply):
        qkv, bias = drawn(2, 2, 3, 12, grad=True), drawn(2, 3, 3, seed=3, grad=True)
        out = attend(qkv, bias, mask, keep, 2)
        out.backward(drawn(*out.shape, seed=4))
        found.append((out.detach(), qkv.grad, bias.grad))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_what_a_compiler_is_told_of_the_operators():
    qkv, bias = drawn(2, 2, 3, 12, grad=True), drawn(2, 3, 3, seed=3, grad=True)
    torch.library.opcheck(OPS.learning_bias_attention, (qkv, bias, drawn(2, 3, 3), None, 2))
    torch.library.opcheck(OPS.learning_bias_attention, (qkv, bias, None, drawn(2, 2, 2, 3, 3).gt(0) * 2.0, 2))
    for shape in ((2, 3, 3), (2, 2, 3, 3)):
        torch.library.opcheck(OPS.window_attention, (drawn(2, 6, 12), drawn(*shape), 2))


def test_the_operator_of_inference_is_window_attention():
    qkv, bias = drawn(2, 6, 12), drawn(2, 2, 3, 3)
    torch.testing.assert_close(OPS.window_attention(qkv, bias, 2), window_attention(qkv, bias, 2))
