"""Parameters that a checkpoint replaces are built as zeros; all other tensors as ever."""

import pytest
import torch
from torch import nn

from florence_mm.apis.model_weights import zeros_for_random
from florence_mm.models.layers.initialisation import trunc_normal_

RANDOM = {
    'linear': lambda: nn.Linear(3, 4).weight,
    'embedding': lambda: nn.Embedding(5, 4).weight,
    'convolution': lambda: nn.Conv2d(3, 4, 3).weight,
    'normal': lambda: nn.init.normal_(nn.Parameter(torch.ones(4))),
    'truncated normal': lambda: trunc_normal_(nn.Parameter(torch.ones(4)), std=0.02),
}


@pytest.mark.parametrize('make', RANDOM.values(), ids=RANDOM)
def test_random_parameters_are_zeros(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with zeros_for_random():
        made = make()
    assert isinstance(made, nn.Parameter) and torch.equal(made, torch.zeros_like(made))
    assert torch.equal(before, torch.get_rng_state()), 'random numbers were drawn'
    assert make().abs().sum() > 0


def test_other_values_are_as_ever():
    with zeros_for_random():
        norm = nn.LayerNorm(4)
        drawn = torch.empty(100).normal_()
    assert torch.equal(norm.weight, torch.ones(4)) and drawn.std() > 0.5
