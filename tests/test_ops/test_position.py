"""Bias tables of another window: worked values, what must not change, and which window a table is for."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from florence_mm.ops.position import fit_relative_position_table, resize_relative_position_table, table_window
from florence_mm.ops.windows import relative_position_bias


def rows(*window):
    count = 1
    for n in window:
        count *= 2 * n - 1
    return count


def random_table(*window, heads=3):
    return torch.randn(rows(*window), heads, generator=torch.Generator().manual_seed(0))


def test_time_is_linear_by_hand():
    # a window of 2 steps at one place: offsets -1, 0, 1; of 3 steps: -2 to 2
    table = torch.tensor([[10.0, 0.0], [20.0, 0.0], [50.0, 1.0]])
    resized = resize_relative_position_table(table, (3, 1, 1), (2, 1, 1))
    # places (i + 0.5) * 3 / 5 - 0.5 of the rows 0, 1, 2: -0.2 (the first), 0.4, 1, 1.6, 2.2 (the last)
    torch.testing.assert_close(resized, torch.tensor([[10, 0], [14, 0], [20, 0], [38, 0.6], [50, 1.0]]))
    # to one step: the value of offset 0
    assert resize_relative_position_table(table, (1, 1, 1), (2, 1, 1)).tolist() == [[20.0, 0.0]]


def test_space_is_the_public_rule_step_by_step():
    table = random_table(2, 3, 3)
    resized = resize_relative_position_table(table, (2, 4, 2), (2, 3, 3)).view(3, 7, 3, 3)
    for before, after in zip(table.view(3, 25, 3), resized, strict=True):
        wanted = F.interpolate(before.t().view(1, 3, 5, 5), size=(7, 3), mode='bicubic')[0].permute(1, 2, 0)
        torch.testing.assert_close(after, wanted)
    # a table of an image is one of a clip of one step
    image = random_table(3, 3)
    torch.testing.assert_close(
        resize_relative_position_table(image, (1, 5, 5), (1, 3, 3)), resize_relative_position_table(image, (5, 5))
    )


@pytest.mark.parametrize('window', [(2, 3, 3), (4, 3, 3), (1, 3, 3), (4, 5, 5), (2, 2, 2), (3, 6, 4)])
def test_what_does_not_change(window):
    source = (3, 3, 3)
    table = random_table(*source)
    assert resize_relative_position_table(table, source, source) is table
    resized = resize_relative_position_table(table, window, source)
    assert resized.shape == (rows(*window), 3)
    # what a token has to itself
    torch.testing.assert_close(resized[len(resized) // 2], table[len(table) // 2])
    # turned round, before or after
    for axis in range(3):
        turned = table.view(5, 5, 5, 3).flip(axis).reshape(-1, 3)
        after = resized.view(*(2 * n - 1 for n in window), 3).flip(axis).reshape(-1, 3)
        torch.testing.assert_close(resize_relative_position_table(turned, window, source), after)
    # a table that does not change over time does what inflation does with an image's
    still = random_table(3, 3)
    wanted = resize_relative_position_table(still, window[1:]).repeat(2 * window[0] - 1, 1)
    torch.testing.assert_close(resize_relative_position_table(still.repeat(5, 1), window, source), wanted)


def test_bias_of_half_precision_tables_and_of_all_heads_alike():
    table = random_table(2, 2, 2)
    longer = resize_relative_position_table(table.half(), (4, 2, 2), (2, 2, 2))
    assert longer.dtype == torch.float16
    torch.testing.assert_close(
        longer.float(), resize_relative_position_table(table, (4, 2, 2), (2, 2, 2)), atol=2e-3, rtol=0
    )
    assert relative_position_bias(longer, (4, 2, 2)).shape == (3, 16, 16)


@pytest.mark.parametrize('by_slot', [False, True])
def test_indices_of_inference_and_of_tracers_serve_training(by_slot):
    window = (5 + by_slot, 3)  # of no other test, so that nothing is kept yet
    with FakeTensorMode():
        relative_position_bias(torch.zeros(rows(*window), 2), window, by_slot=by_slot)
    with torch.inference_mode():
        wanted = relative_position_bias(random_table(*window), window, by_slot=by_slot)
    table = random_table(*window).requires_grad_()
    bias = relative_position_bias(table, window, by_slot=by_slot)
    assert torch.equal(bias, wanted)
    bias.sum().backward()
    assert table.grad.sum() == bias.numel()
    on_meta = relative_position_bias(table.to('meta'), window, by_slot=by_slot)
    assert on_meta.device.type == 'meta' and on_meta.shape == wanted.shape


@pytest.mark.parametrize(
    ('window', 'like'),
    [
        ((8, 7, 7), (8, 7, 7)),
        ((16, 7, 7), (8, 7, 7)),
        ((5, 7, 7), (2, 7, 7)),  # as many rows as (1, 20, 20)
        ((1, 7, 7), (8, 7, 7)),  # of an image
        ((8, 7, 7), (8, 12, 12)),
        ((8, 8, 8), (8, 5, 5)),
        ((8, 7, 7), (16, 12, 12)),
    ],
)
def test_window_of_a_table(window, like):
    assert table_window(rows(*window), like) == window


def test_windows_that_cannot_be_told():
    # (5, 7, 7), (1, 20, 20) and others
    assert table_window(rows(5, 7, 7), (8, 12, 12)) is None
    assert table_window(24, (2, 4, 4)) is None
    assert fit_relative_position_table(torch.zeros(rows(5, 7, 7), 2), (8, 12, 12)) is None
    with pytest.raises(ValueError, match='a window .2, 3, 3. has a table of 75 rows, this one has 27'):
        resize_relative_position_table(torch.zeros(27, 2), (2, 2, 2), (2, 3, 3))
    with pytest.raises(ValueError, match='24 rows does not belong to a square window'):
        fit_relative_position_table(torch.zeros(24, 2), (7, 7))
