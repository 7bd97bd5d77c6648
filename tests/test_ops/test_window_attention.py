"""Window attention against the procedure of the Swin paper written out naively, and against values worked by hand."""

import itertools
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from florence_mm.ops import windows
from florence_mm.ops.attention import window_attention
from florence_mm.ops.learning_bias import LearningBiasAttention
from florence_mm.ops.position import resize_position_embedding, resize_relative_position_table
from florence_mm.ops.windows import (
    fit_window,
    from_windows,
    relative_position_bias,
    relative_position_index,
    to_windows,
    window_plan,
)

# map, window, shift, heads
CASES = [
    ((8, 8), (4, 4), (2, 2), 2),  # divides
    ((8, 4), (4, 4), (0, 0), 1),  # no shift
    ((7, 10), (4, 4), (2, 2), 3),  # padded below and right
    ((9, 5), (4, 3), (0, 1), 2),  # shift on one axis, oblong window
    ((4, 4), (4, 4), (0, 0), 2),  # one window: slots are tokens in order
    ((4, 6, 6), (2, 3, 3), (1, 1, 1), 2),  # a clip
    ((3, 5, 7), (2, 4, 4), (1, 2, 0), 2),  # a padded clip
]


def naive_attention(x, qkv, table, size, window, shift, heads):
    """Pad, roll, cut, attend with bias and mask, and all back; one window and one head at a time."""
    batch, channels = x.shape[0], x.shape[-1]
    dim, axes = channels // heads, range(len(size))
    x = x.view(batch, *size, channels)
    pads = [(-s) % w for s, w in zip(size, window, strict=True)]
    x = F.pad(x, [0, 0, *[n for p in reversed(pads) for n in (0, p)]])
    padded = x.shape[1:-1]
    x = torch.roll(x, [-s for s in shift], [a + 1 for a in axes])
    # regions of the rolled map that were neighbours before, as slices from the end of each axis
    region = torch.zeros(padded)
    slices = [
        [slice(0, -w), slice(-w, -s), slice(-s, None)] if s else [slice(None)]
        for w, s in zip(window, shift, strict=True)
    ]
    for number, part in enumerate(itertools.product(*slices)):
        region[part] = number
    out = torch.zeros_like(x)
    starts = itertools.product(*(range(0, p, w) for p, w in zip(padded, window, strict=True)))
    places = list(itertools.product(*(range(w) for w in window)))
    for start in starts:
        box = tuple(slice(b, b + w) for b, w in zip(start, window, strict=True))
        tokens = qkv(x[(slice(None), *box)]).reshape(batch, len(places), 3, heads, dim)
        where = region[box].flatten()
        mask = (where[:, None] != where[None, :]) * -100.0
        rows = [
            sum(
                (p - q + w - 1) * int(torch.tensor([2 * v - 1 for v in window[a + 1 :]]).prod())
                for a, (p, q, w) in enumerate(zip(one, two, window, strict=True))
            )
            for one in places
            for two in places
        ]
        parts = []
        for head in range(heads):
            q, k, v = (tokens[:, :, i, head] for i in range(3))
            score = q @ k.transpose(1, 2) / dim**0.5 + table[rows, head].view(len(places), -1) + mask
            parts.append(score.softmax(-1) @ v)
        out[(slice(None), *box)] = torch.cat(parts, -1).view(batch, *window, channels)
    out = torch.roll(out, list(shift), [a + 1 for a in axes])
    return out[(slice(None), *(slice(s) for s in size))].reshape(batch, -1, channels)


def our_attention(x, qkv, table, size, window, shift, heads):
    plan = window_plan(size, window, shift)
    bias = relative_position_bias(table, window)
    return from_windows(window_attention(qkv(to_windows(x, plan)), bias, heads, plan.mask), plan)


@pytest.mark.parametrize(('size', 'window', 'shift', 'heads'), CASES)
@pytest.mark.parametrize('learns', [True, False], ids=['learning bias', 'frozen bias'])
def test_outputs_and_gradients_equal_the_naive_procedure(size, window, shift, heads, learns):
    torch.manual_seed(0)
    channels = 8 * heads
    rows, tokens = torch.tensor([2 * w - 1 for w in window]).prod(), torch.tensor(size).prod()
    linear = nn.Linear(channels, 3 * channels)
    numbers, picture, weight = torch.randn(rows, heads), torch.randn(3, tokens, channels), torch.randn(channels)

    def outputs(attention, dtype):
        qkv = deepcopy(linear).to(dtype)
        table, x = numbers.to(dtype).requires_grad_(learns), picture.to(dtype).requires_grad_()
        out = attention(x, qkv, table, size, window, shift, heads)
        wanted = [x, *qkv.parameters(), *([table] if learns else [])]
        grads = torch.autograd.grad((out * weight).sum(), wanted)
        with torch.inference_mode():
            again = attention(x, qkv, table, size, window, shift, heads)
        return out, again, *grads

    exact = outputs(naive_attention, torch.float64)
    for ours, naive in zip(outputs(our_attention, torch.float64), exact, strict=True):
        torch.testing.assert_close(ours, naive, atol=1e-11, rtol=1e-11)
    terms = 3 * tokens + 3 * channels  # of the longest sums: weights' gradients, and what a channel of the input gets
    for ours, naive in zip(outputs(our_attention, torch.float32), exact, strict=True):
        rounding = terms * torch.finfo(torch.float32).eps * naive.abs().max()
        torch.testing.assert_close(ours.double(), naive, atol=rounding.item(), rtol=0)


def test_a_clip_of_one_frame_is_an_image():
    torch.manual_seed(0)
    x, table, qkv = torch.randn(2, 35, 16).double(), torch.randn(49, 2).double(), nn.Linear(16, 48).double()
    image = our_attention(x, qkv, table, (5, 7), (4, 4), (2, 2), 2)
    clip = our_attention(x, qkv, table, (1, 5, 7), (1, 4, 4), (0, 2, 2), 2)
    torch.testing.assert_close(clip, image, atol=1e-12, rtol=0)


@pytest.mark.parametrize('train', [True, False])
def test_no_fall_to_the_slow_kernel(train):
    qkv = torch.randn(2, 64, 24, requires_grad=train)
    bias = torch.randn(2, 16, 16, requires_grad=train)
    with torch.profiler.profile() as profile, torch.set_grad_enabled(train):
        out = window_attention(qkv, bias, 2, torch.zeros(4, 16, 16))
        if train:
            out.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert not any('attention_math' in name for name in names)
    assert any('flash_attention_for_cpu' in name for name in names) is not train


def test_gradients_of_the_learning_bias_by_finite_differences():
    torch.manual_seed(0)
    qkv = torch.randn(1, 2, 3, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([0.0, -1.0], dtype=torch.float64).view(2, 1, 1).repeat(1, 3, 3).tril()

    def attend(qkv, bias, dropout_p):
        torch.manual_seed(3)  # the same weights are dropped in every evaluation
        keep = torch.rand(2, 1, 2, 3, 3, dtype=torch.float64).ge(dropout_p) / (1 - dropout_p) if dropout_p else None
        return LearningBiasAttention.apply(qkv, bias, mask, keep, 2)

    for dropout_p in (0.0, 0.4):
        assert torch.autograd.gradcheck(lambda q, b, p=dropout_p: attend(q, b, p), (qkv, bias))
    assert not torch.equal(attend(qkv, bias, 0.0), attend(qkv, bias, 0.4))


def test_dropped_weights_keep_the_mean():
    torch.manual_seed(0)
    qkv, bias = torch.randn(1, 4, 12), torch.randn(1, 4, 4, requires_grad=True)
    exact = window_attention(qkv, bias, 1)
    many = window_attention(qkv.expand(4000, -1, -1), bias, 1, dropout_p=0.3)
    torch.testing.assert_close(many.mean(0, keepdim=True), exact, atol=0.06, rtol=0)


@pytest.mark.parametrize('learns', [True, False])
def test_bfloat16_is_close_to_float32(learns):
    torch.manual_seed(0)
    qkv = torch.randn(2, 32, 48)
    bias = torch.randn(2, 16, 16, requires_grad=learns)
    mask = torch.zeros(2, 16, 16)
    half = window_attention(qkv.bfloat16(), bias, 2, mask)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), window_attention(qkv, bias, 2, mask), atol=0.06, rtol=0.02)
    if learns:
        half.sum().backward()
        assert bias.grad.dtype == torch.float32 and bias.grad.isfinite().all()


def test_autocast_trains():
    torch.manual_seed(0)
    qkv, table = nn.Linear(16, 48), torch.randn(49, 2, requires_grad=True)
    x = torch.randn(2, 35, 16)
    grads = []
    for enabled in (True, False):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out = our_attention(x, qkv, table, (5, 7), (4, 4), (2, 2), 2)
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
        grads.append(torch.autograd.grad(out.float().square().sum(), [table, qkv.weight]))
    for half, full in zip(*grads, strict=True):
        assert (half - full).norm() < 0.03 * full.norm()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r'qkv \(1, 10, 24\).* 2 heads do not fit'):
        window_attention(torch.zeros(1, 10, 24), torch.zeros(2, 4, 4), 2)


def test_a_shifted_row_by_hand():
    plan = window_plan((4,), (2,), (1,))
    assert plan.order.tolist() == [1, 2, 3, 0] and plan.inverse.tolist() == [3, 0, 1, 2]
    assert plan.mask.tolist() == [[[0, 0], [0, 0]], [[0, -100], [-100, 0]]]  # 3 and 0 were not neighbours


def test_a_padded_row_by_hand():
    plan = window_plan((3,), (2,), (0,))
    x = torch.tensor([[[1.0], [2.0], [3.0]]], requires_grad=True)
    slots = to_windows(x, plan)
    assert slots.flatten().tolist() == [1, 2, 3, 0] and plan.mask is None
    assert from_windows(slots, plan).flatten().tolist() == [1, 2, 3]
    (slots * torch.tensor([5.0, 6.0, 7.0, 8.0]).view(1, 4, 1)).sum().backward()
    assert x.grad.flatten().tolist() == [5, 6, 7]


def test_a_map_of_one_window_is_not_copied():
    x = torch.randn(2, 16, 3)
    plan = window_plan((4, 4), (4, 4), (0, 0))
    assert to_windows(x, plan) is x and from_windows(x, plan) is x


def test_windows_shrink_axis_by_axis():
    assert fit_window((7, 7), (7, 7), (3, 3)) == ((7, 7), (0, 0))
    assert fit_window((5, 9), (7, 7), (3, 3)) == ((5, 7), (0, 3))
    assert fit_window((8, 56, 56), (16, 7, 7), (8, 3, 3)) == ((8, 7, 7), (0, 3, 3))


def test_plans_are_kept_within_bounds_and_serve_training_later():
    with torch.inference_mode():
        window_plan((6, 6), (4, 4), (2, 2))
    for side in range(4, 4 + 2 * windows._CACHE_SIZE):
        window_plan((side, 4), (4, 4), (0, 0))
    assert len(windows._cache) == windows._CACHE_SIZE
    with torch.inference_mode():
        plan = window_plan((6, 6), (4, 4), (2, 2))
    x = torch.randn(1, 36, 2, requires_grad=True)
    from_windows(to_windows(x, plan), plan).sum().backward()
    assert (x.grad == 1).all() and not plan.mask.is_inference()


def test_wrong_shift_is_named():
    with pytest.raises(ValueError, match=r'shift_size \(4,\) must be at least 0 and smaller than window_size \(4,\)'):
        window_plan((8,), (4,), (4,))


def test_relative_positions_of_a_small_window_by_hand():
    assert relative_position_index((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_a_smaller_window_uses_the_offsets_it_has():
    table = torch.arange(25.0).view(5, 5)  # of a 3 x 3 window: offsets -2 to 2 on both axes
    inner = table[1:4, 1:4].reshape(9, 1)
    small = relative_position_bias(table.reshape(25, 1), (2, 2), (3, 3))
    assert torch.equal(small, relative_position_bias(inner, (2, 2)))


def test_tables_are_resized_bicubically_per_head():
    table = torch.randn(13 * 13, 3)
    wide = resize_relative_position_table(table, (12, 12))
    for head in range(3):
        picture = F.interpolate(table[:, head].view(1, 1, 13, 13), size=(23, 23), mode='bicubic')
        torch.testing.assert_close(wide[:, head], picture.flatten())
    assert resize_relative_position_table(table, (7, 7)) is table
    with pytest.raises(ValueError, match='table of 10 rows does not belong to a square window'):
        resize_relative_position_table(torch.zeros(10, 1), (7, 7))


def test_position_embeddings_are_resized_bicubically():
    embed = torch.randn(1, 12, 2)
    wide = resize_position_embedding(embed, (6, 5), (3, 4))
    picture = F.interpolate(embed[0, :, 1].view(1, 1, 3, 4), size=(6, 5), mode='bicubic')
    torch.testing.assert_close(wide[0, :, 1], picture.flatten())
