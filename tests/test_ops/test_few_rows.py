"""Linear layers of few rows give what PyTorch's give, and what is not plain is left to PyTorch."""

import pytest
import torch
from torch import nn

from florence_mm.ops.inference import few_rows_linear


@pytest.mark.parametrize('rows', [1, 3, 4, 7])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rows_and_types(rows, bias, dtype):
    torch.manual_seed(0)
    layer, x = nn.Linear(768, 768, bias=bias, dtype=dtype), torch.randn(rows, 768, dtype=dtype)
    with torch.no_grad():
        got = few_rows_linear(x, layer)
        assert got.is_contiguous()
        torch.testing.assert_close(got, layer(x))
    few_rows_linear(x, layer).sum().backward()
    assert layer.weight.grad is not None


def test_a_hook_is_called():
    layer, seen = nn.Linear(768, 768), []
    layer.register_forward_hook(lambda *call: seen.append(call))
    with torch.no_grad():
        few_rows_linear(torch.zeros(3, 768), layer)
    assert len(seen) == 1
