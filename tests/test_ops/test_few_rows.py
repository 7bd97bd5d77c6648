"""Linear layers of few rows give what PyTorch's give, and what is not plain is left to PyTorch."""

import pytest
import torch
from torch import nn

from florence_mm.models.heads.multimodal.vocabulary import some_outputs
from florence_mm.ops.inference import few_rows_linear


@pytest.mark.parametrize('rows', [1, 3, 4, 7, 16, 17, 500])
@pytest.mark.parametrize('sizes', [(768, 768), (3072, 256), (256, 16000)], ids=['square', 'wide', 'very large'])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rows_and_types(rows, sizes, bias, dtype):
    torch.manual_seed(0)
    layer, x = nn.Linear(*sizes, bias=bias, dtype=dtype), torch.randn(rows, sizes[0], dtype=dtype)
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


@pytest.mark.parametrize('rows', [1, 4])
def test_some_outputs(rows):
    torch.manual_seed(0)
    layer, x = nn.Embedding(9000, 96), torch.randn(rows, 96)
    with torch.no_grad():
        whole = x @ layer.weight.t()
        torch.testing.assert_close(some_outputs(x, layer, range(7, 20)), whole[:, 7:20])
        torch.testing.assert_close(some_outputs(x, layer, range(7000)), whole[:, :7000])
        places = torch.tensor([0, 3, 8999])
        torch.testing.assert_close(some_outputs(x, layer, places), whole[:, places])
