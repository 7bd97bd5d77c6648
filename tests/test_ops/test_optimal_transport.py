"""IPOT against an exact linear program, on masked and unmasked sets."""

import numpy as np
import pytest
import torch

from florence_mm.ops.optimal_transport import cosine_distances, transport_costs, transport_plan


def exact_cost(cost):
    optimize = pytest.importorskip('scipy.optimize')
    rows, columns = cost.shape
    sums = np.concatenate([np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))])
    shares = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    return optimize.linprog(cost.double().numpy().ravel(), A_eq=sums, b_eq=shares, bounds=(0, None)).fun


@pytest.mark.parametrize(('rows', 'columns'), [(4, 4), (5, 12), (12, 5), (9, 30)])
def test_plan_reaches_the_linear_program(rows, columns):
    torch.manual_seed(rows + columns)
    x, y = torch.randn(1, rows, 8), torch.randn(1, columns, 8)
    cost = cosine_distances(x, y)
    plan = transport_plan(cost, beta=0.5, iterations=2000)
    assert (plan.sum(2) - 1 / rows).abs().max() <= 1e-4
    assert (plan.sum(1) - 1 / columns).abs().max() <= 1e-4
    best = exact_cost(cost[0])
    assert best - 1e-5 <= float((plan * cost).sum()) <= 1.02 * best


@pytest.mark.parametrize('size', [(6, 9), (12, 36)])
def test_published_iterations_are_enough(size):
    torch.manual_seed(0)
    for _ in range(4):
        x, y = (torch.randn(1, number, 16) for number in size)
        cost = cosine_distances(x, y)
        plan = transport_plan(cost)
        assert (plan.sum(2) - 1 / size[0]).abs().max() <= 1e-4
        print((plan.sum(1) - 1 / size[1]).abs().max(), float((plan * cost).sum()) / exact_cost(cost[0]))
