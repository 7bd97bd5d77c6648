"""IPOT against an exact linear program, on sets with and without padding."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from florence_mm.ops.optimal_transport import cosine_distances, transport_costs, transport_plan


def exact_cost(cost):
    rows, columns = cost.shape
    sums = np.concatenate([np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))])
    shares = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    return linprog(cost.double().numpy().ravel(), A_eq=sums, b_eq=shares, bounds=(0, None)).fun


@pytest.mark.parametrize('size', [(4, 4), (5, 12), (12, 5), (12, 36)])
def test_the_plan_goes_to_the_exact_one(size):
    torch.manual_seed(sum(size))
    x, y = (torch.randn(3, number, 16) for number in size)
    cost = cosine_distances(x, y)
    plan = transport_plan(cost, iterations=500)
    assert (plan >= 0).all()
    assert (plan.sum(2) - 1 / size[0]).abs().max() <= 1e-4
    assert (plan.sum(1) - 1 / size[1]).abs().max() <= 1e-4
    published = transport_plan(cost)  # 50 iterations
    assert (published.sum(2) - 1 / size[0]).abs().max() <= 1e-4
    assert (published.sum(1) - 1 / size[1]).abs().max() <= 1e-3
    for one, exact, moved in zip(cost, (plan * cost).sum((1, 2)), transport_costs(x, y), strict=True):
        best = exact_cost(one)
        assert best * (1 - 1e-3) <= float(exact) <= 1.002 * best
        assert best * (1 - 2e-3) <= float(moved) <= 1.02 * best


def test_more_scalings_of_a_step_bring_the_sums_of_columns_nearer():
    torch.manual_seed(2)
    cost = cosine_distances(torch.randn(3, 6, 8), torch.randn(3, 9, 8))
    once, often = ((transport_plan(cost, iterations=2, inner=n).sum(1) - 1 / 9).abs().max() for n in (1, 50))
    assert often <= 1e-5 < once


def test_padding_changes_nothing_and_a_batch_equals_its_pairs():
    torch.manual_seed(0)
    x, y = torch.randn(3, 6, 8), torch.randn(3, 9, 8)
    rows = torch.arange(6) < torch.tensor([[6], [2], [4]])
    columns = torch.arange(9) < torch.tensor([[3], [9], [1]])
    plan = transport_plan(cosine_distances(x, y), rows, columns)
    costs = transport_costs(x, y, rows, columns)
    assert not plan[~(rows[:, :, None] & columns[:, None])].any()
    for n in range(3):
        own = x[n, rows[n]][None], y[n, columns[n]][None]
        alone = transport_plan(cosine_distances(*own))
        torch.testing.assert_close(plan[n, rows[n]][:, columns[n]], alone[0])
        torch.testing.assert_close(costs[n : n + 1], transport_costs(*own))


def test_an_empty_set_costs_nothing():
    x, y = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 5, 4)
    costs = transport_costs(x, y, torch.tensor([[True] * 3, [False] * 3]))
    assert costs[0] > 0 and costs[1] == 0
    costs.sum().backward()
    assert torch.isfinite(x.grad).all() and not x.grad[1].any()


def test_the_plan_has_no_gradient():
    torch.manual_seed(1)
    x, y = torch.randn(1, 3, 8, requires_grad=True), torch.randn(1, 4, 8)
    plan = transport_plan(cosine_distances(x, y))
    assert not plan.requires_grad
    (gradient,) = torch.autograd.grad(transport_costs(x, y).sum(), x)
    (expected,) = torch.autograd.grad((cosine_distances(x, y) * plan).sum(), x)
    torch.testing.assert_close(gradient, expected)


def test_double_precision_stays_double():
    x, y = (torch.randn(2, n, 4, generator=torch.Generator().manual_seed(n)) for n in (3, 5))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    costs = transport_costs(x.double(), y.double(), mask)
    assert costs.dtype == torch.float64
    torch.testing.assert_close(costs.float(), transport_costs(x, y, mask), rtol=1e-5, atol=1e-6)


def test_half_precision_is_computed_in_float32():
    x, y = torch.randn(1, 3, 8).bfloat16(), torch.randn(1, 4, 8).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        costs = transport_costs(x, y)
    assert costs.dtype == torch.float32
    torch.testing.assert_close(costs, transport_costs(x.float(), y.float()))


@pytest.mark.parametrize('wrong', [{'beta': 0}, {'iterations': 0}, {'inner': 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match='of the transport plan must be above 0; UNITER has'):
        transport_plan(torch.rand(1, 2, 2), **wrong)
    with pytest.raises(ValueError, match=r'give \(B, M\) and \(B, N\)'):
        transport_plan(torch.rand(1, 2, 3), torch.ones(1, 3, dtype=torch.bool))
