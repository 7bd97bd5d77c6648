"""Attention within windows without padded tokens against padded ones written out, and channel attention by hand."""

import pytest
import torch

from florence_mm.ops.dual_attention import channel_attention, edge_plan, edge_window_attention
from florence_mm.ops.windows import from_windows, to_windows


def padded_attention(x, weight, bias, size, window, heads):
    """Window by window, image by image, with all padded tokens."""
    batch, _, channels = x.shape
    height, width = (-(-s // window) * window for s in size)
    maps = x.new_zeros(batch, height, width, channels)
    maps[:, : size[0], : size[1]] = x.unflatten(1, size)
    out = torch.zeros_like(maps)
    for image in range(batch):
        for top in range(0, height, window):
            for left in range(0, width, window):
                cut = (image, slice(top, top + window), slice(left, left + window))
                qkv = maps[cut].reshape(-1, channels) @ weight.T + bias
                for q, k, v, place in zip(
                    *(part.chunk(heads, -1) for part in qkv.chunk(3, -1)), range(heads), strict=True
                ):
                    rows = (q @ k.T * q.shape[1] ** -0.5).softmax(-1) @ v
                    own = slice(place * rows.shape[1], (place + 1) * rows.shape[1])
                    out[cut][..., own] = rows.view(window, window, -1)
    return out[:, : size[0], : size[1]].flatten(1, 2)


@pytest.mark.parametrize('size', [(4, 4), (8, 4), (5, 9), (3, 2), (4, 6), (1, 8)])
def test_windows_at_the_edge(size):
    torch.manual_seed(0)
    heads, channels, window = 2, 6, 4
    x = torch.randn(3, size[0] * size[1], channels, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3 * channels, channels, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3 * channels, dtype=torch.float64, requires_grad=True)
    plan = edge_plan(3, size, window)
    assert sum(group.count * group.tokens for group in plan.groups) == x.shape[0] * x.shape[1]
    rows = to_windows(x.reshape(1, -1, channels), plan)[0]
    out = edge_window_attention(rows @ weight.T + bias, bias, plan.groups, heads)
    out = from_windows(out[None], plan).view(x.shape)
    expected = padded_attention(x, weight, bias, size, window, heads)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
    grad = torch.randn_like(out)
    ours = torch.autograd.grad(out, (x, weight, bias), grad)
    for mine, other in zip(ours, torch.autograd.grad(expected, (x, weight, bias), grad), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-11, rtol=1e-11)


def test_plan_of_one_window_keeps_the_order():
    plan = edge_plan(2, (3, 2), 4)
    assert plan.order is None and [(g.count, g.tokens, g.padded) for g in plan.groups] == [(2, 6, 10)]
    assert edge_plan(2, (3, 2), 4) is plan  # kept


def test_channels():
    """Two groups of two channels and three tokens, channel by channel."""
    torch.manual_seed(0)
    qkv = torch.randn(1, 3, 12, dtype=torch.float64)
    out = channel_attention(qkv, 2, 3**-0.5)
    q, k, v = qkv[0].T.view(3, 4, 3)  # each channel's values at the tokens
    for channel in range(4):
        group = [0, 1] if channel < 2 else [2, 3]
        scores = torch.stack([q[channel] @ k[other] for other in group]) * 3**-0.5
        expected = sum(w * v[other] for w, other in zip(scores.softmax(0), group, strict=True))
        torch.testing.assert_close(out[0, :, channel], expected)
