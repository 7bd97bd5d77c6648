"""A model that is split while it is initialised has the values of one that is whole."""

import numpy as np
import pytest
import torch
from forks import as_ranks
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from florence_mm.engine.meta_init import ShardedInit, as_on_rank_0
from florence_mm.engine.parallelize import gather_model_state, parallelize, split_model_state


class Block(nn.Module):
    """A block whose first axes are divided neither by 2 nor by 3."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 4 * width + 1)
        self.back = nn.Linear(4 * width + 1, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer('index', torch.arange(width).flip(0))

    def forward(self, x):
        return x + self.back(self.fc(self.norm(x)[..., self.index]))


class Model(nn.Module):
    """A model whose initialisation writes parts of parameters, reads others, and ties two."""

    def __init__(self, width=23, depth=3):
        super().__init__()
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 7, bias=False)
        self.tied = nn.Linear(width, 7)
        self.tied.weight = self.head.weight
        self.few = nn.Parameter(torch.rand(1, 5))
        self.frozen = nn.Parameter(torch.rand(9), requires_grad=False)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def init_weights(self):
        for block in self.blocks:
            nn.init.trunc_normal_(block.fc.weight, std=0.02)
            nn.init.zeros_(block.fc.bias[: len(block.fc.bias) // 2])
        with torch.no_grad():
            self.frozen.copy_(torch.from_numpy(np.random.rand(9)))
            # a tenth of what another process must give
            self.blocks[0].fc.weight[-1] = self.blocks[2].fc.weight.mean(0) + self.few.sum()
            self.head.weight.mul_(self.blocks(torch.ones(1, 23)).sum())

    def forward(self, x):
        return self.scale * (self.head(self.blocks(x)) + self.tied(x)) + self.few.sum() + self.frozen.sum()


def initialised(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = Model()
    model.init_weights()
    return model


@pytest.mark.parametrize('world', [2, 3])
def test_values_are_those_of_one_process(world):
    whole = initialised(5)
    expected, x = whole.state_dict(), torch.rand(4, 23)

    def work():
        distributed.init_process_group('gloo')
        rank, init = distributed.get_rank(), ShardedInit(kept=0)
        # as with diff_rank_seed: the first process decides
        torch.manual_seed(5 + rank), np.random.seed(5 + rank)
        mine = torch.get_rng_state()
        with as_on_rank_0(), init:
            model = Model()
            model.few.no_decay = True
            model.init_weights()
        assert rank == 0 or torch.equal(torch.get_rng_state(), mine)
        init.to(model, 'cpu')
        parallelize(model, ['Block'], shard=True, init=init)
        assert model.tied.weight is model.head.weight
        assert not model.frozen.requires_grad
        state = gather_model_state(model)
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(state[key], value), key
        torch.testing.assert_close(model(x), whole(x))
        # what is split for loading keeps the memory of its rows alone
        for value in split_model_state(expected, model).values():
            part = value.to_local() if isinstance(value, DTensor) else value
            assert part.untyped_storage().nbytes() == part.nbytes
        total = sum(parameter.nbytes for parameter in whole.parameters())
        block = sum(parameter.nbytes for parameter in whole.blocks[0].parameters())
        # rows that do not divide evenly are gathered beside the parameter; parts of few rows are larger than 1 / W
        assert init.peak < 1.1 * total / world + 1.2 * block, (init.peak, total, block)
        distributed.destroy_process_group()

    as_ranks(work, world)
