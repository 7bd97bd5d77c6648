import pytest
import torch
from torch.nn import functional as F

from florence_mm.ops import attention as module
from florence_mm.ops.attention import attention, dropout


@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 999, requires_grad=True)  # an odd number of elements
    y = dropout(x, p)
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-5)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    # neighbours, which share a draw of the generator, do not depend on each other
    kept = (y != 0).float()
    both = (kept[:, 1:] * kept[:, :-1]).mean().item()
    assert both == pytest.approx((1 - p) ** 2, abs=0.003)


def test_seeded_and_nothing_at_zero():
    x = torch.randn(5, 7)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(dropout(x, 0.4))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert dropout(x, 0.0) is x
    assert dropout(x.bfloat16(), 0.4).dtype == torch.bfloat16


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_written_out_attention_is_the_fused_one(monkeypatch, causal, masked):
    if causal and masked:
        masked = False  # causal attention takes no mask
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]).bool()[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    torch.testing.assert_close(attention(q, k, v, mask, causal), expected)
    monkeypatch.setattr(module, 'dropout', lambda x, p: x)
    torch.testing.assert_close(attention(q, k, v, mask, causal, 0.5), expected)


def test_attention_drops_weights():
    torch.manual_seed(0)
    q = k = torch.zeros(1, 1, 1, 4)
    k = k.expand(1, 1, 20000, 4)
    v = torch.ones(1, 1, 20000, 1)
    # equal weights, of which a quarter goes and the others grow by a third
    assert attention(q, k, v, dropout_p=0.25).item() == pytest.approx(1, abs=0.02)
    values = torch.eye(50)[None, None]
    out = attention(torch.zeros(1, 1, 1, 50), torch.zeros(1, 1, 50, 50), values, dropout_p=0.25) * 50
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
