"""Layers that are partly computed again in the backward pass give what the plain ones do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.backbones.stages import PatchMerging
from florence_mm.models.layers.swin import WindowBlock
from florence_mm.ops import linear, recomputed
from florence_mm.ops.inference import quick_gelu
from florence_mm.ops.recomputed import norm_linear, norm_mlp, recomputing_allowed, trained_linear
from florence_mm.ops.windows import to_windows, window_plan

PLANS = {'map order': None, 'shifted and padded': window_plan((3, 4), (2, 2), (1, 1))}


def layers(dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    norm, fc1, fc2 = nn.LayerNorm(4), nn.Linear(4, 6, bias=bias), nn.Linear(6, 4, bias=bias)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return (layer.to(dtype) for layer in (norm, fc1, fc2))


def norm_linear_pair(plan, bias=True):
    norm, fc1, _ = layers(bias=bias)
    windows = (lambda x: x) if plan is None else (lambda x: to_windows(x, plan))
    return (
        lambda x: norm_linear(x, norm, fc1.weight, fc1.bias, plan),
        lambda x: fc1(windows(norm(x))),
        [*norm.parameters(), *fc1.parameters()],
    )


def norm_mlp_pair(act, bias=True):
    norm, fc1, fc2 = layers(bias=bias)
    function = F.gelu if act == 'gelu' else quick_gelu
    return (
        lambda x: norm_mlp(x, norm, fc1, fc2, act),
        lambda x: fc2(function(fc1(norm(x)))),
        [*norm.parameters(), *fc1.parameters(), *fc2.parameters()],
    )


def linear_pair(bias=True):
    _, fc1, _ = layers(bias=bias)
    return lambda x: trained_linear(x, fc1), fc1, list(fc1.parameters())


PAIRS = {
    **{f'norm_linear, {name}': lambda plan=plan: norm_linear_pair(plan) for name, plan in PLANS.items()},
    'norm_linear without bias': lambda: norm_linear_pair(None, bias=False),
    **{f'norm_mlp, {act}': lambda act=act: norm_mlp_pair(act) for act in ('gelu', 'quick_gelu')},
    'norm_mlp without bias': lambda: norm_mlp_pair('gelu', bias=False),
    'linear': linear_pair,
    'linear without bias': lambda: linear_pair(bias=False),
}


@pytest.mark.parametrize('name', PAIRS)
def test_finite_differences_and_the_plain_layers(name):
    found, plain, weights = PAIRS[name]()
    x = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, *_: found(x), (x, *weights))
    outs = found(x), plain(x)
    torch.testing.assert_close(*outs)
    grads = (torch.autograd.grad(out.square().sum(), (x, *weights)) for out in outs)
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('name', PAIRS)
def test_autocast_leaves_float64(name):
    found, plain, _ = PAIRS[name]()
    x = torch.randn(2, 12, 4, dtype=torch.float64)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(found(x), plain(x))


@pytest.mark.parametrize('kind', ['input', 'weight'])
@pytest.mark.parametrize('name', PAIRS)
def test_what_is_changed_before_the_backward_pass_is_noticed(name, kind):
    found, _, weights = PAIRS[name]()
    x = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True) * 1
    out = found(x).sum()
    with torch.no_grad():
        (x if kind == 'input' else weights[-2 if len(weights) > 1 and weights[-1].ndim == 1 else -1]).add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.backward()


@pytest.mark.parametrize('name', PAIRS)
def test_frozen_weights_get_no_gradient_and_the_input_does(name):
    found, plain, weights = PAIRS[name]()
    for weight in weights:
        weight.requires_grad_(False)
    x = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True)
    grads = [torch.autograd.grad(call(x).square().sum(), x)[0] for call in (found, plain)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('name', PAIRS)
def test_checkpointing_changes_no_gradient(name):
    found, _, weights = PAIRS[name]()
    x = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True)
    outs = found(x), checkpoint(found, x, use_reentrant=False)
    grads = (torch.autograd.grad(out.square().sum(), (x, *weights)) for out in outs)
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


@pytest.mark.parametrize('name', PAIRS)
def test_a_second_derivative_is_refused(name):
    found, _, _ = PAIRS[name]()
    x = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(found(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def steps_of(module, *args, autocast):
    """Output and gradients of a step by the functions, and by the plain layers."""
    x = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for hook in (None, lambda *_: None):
        for child in module.modules():
            if hook and child is not module:
                child.register_forward_pre_hook(hook)  # none of the functions is used
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            out = module(leaf, *args)
        (out[0] if isinstance(out, tuple) else out).square().sum().backward()
        found.append([leaf.grad, *(p.grad for p in module.parameters())])
    return found


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('kind', ['block', 'block with layer scale', 'patch merging'])
def test_a_block_trains_alike_without_the_functions(monkeypatch, kind, autocast):
    used = []
    for cls in (recomputed._NormLinear, recomputed._NormMlp):
        forward = cls.forward
        monkeypatch.setattr(cls, 'forward', staticmethod(lambda *a, f=forward: (used.append(1), f(*a))[1]))
    torch.manual_seed(0)
    if kind == 'patch merging':
        module, args = PatchMerging(8), ((3, 4),)
    else:
        scale = 0.5 if 'scale' in kind else None
        module, args = WindowBlock(8, 2, (2, 2), (1, 1), layer_scale_init_value=scale), ((3, 4),)
    ours, plain = steps_of(module, *args, autocast=autocast)
    assert len(used) == (1 if kind == 'patch merging' else 2)
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() <= (0.02 if autocast else 1e-5) * b.norm()


def test_what_is_not_a_plain_layer_in_training_is_left_alone():
    block = WindowBlock(8, 2, (2, 2), (0, 0))
    x = torch.randn(1, 4, 8)
    assert recomputing_allowed(x, block, block.mlp.fc1)
    with torch.no_grad():
        assert not recomputing_allowed(x, block, block.mlp.fc1)
    assert not recomputing_allowed(x, block.eval(), block.mlp.fc1)
    block.train()
    assert not recomputing_allowed(x.to('meta'), block, block.mlp.fc1)
    assert not recomputing_allowed(x, block, nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))
    hook = block.mlp.fc2.register_forward_hook(lambda *_: None)
    assert not recomputing_allowed(x, block, block.mlp.fc1)
    hook.remove()
    assert recomputing_allowed(x, block, block.mlp.fc1)


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, '_linear_pointwise'), reason='PyTorch without oneDNN')
def test_products_by_onednn_are_products(monkeypatch):
    monkeypatch.setattr(linear, 'prefers_onednn', lambda: True)
    monkeypatch.setattr(linear, '_ONEDNN_MULTIPLICATIONS', 0)
    x, weight, bias = torch.randn(2, 5, 7), torch.randn(3, 7), torch.randn(3)
    torch.testing.assert_close(linear.product(x, weight, bias), x @ weight.t() + bias)
    torch.testing.assert_close(linear.product(x[:0], weight, bias), torch.empty(0, 5, 3))
    transposed = weight.t().contiguous().t()
    torch.testing.assert_close(linear.product(x, transposed), x @ weight.t())


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, '_linear_pointwise'), reason='PyTorch without oneDNN')
@pytest.mark.parametrize(
    ('rows', 'inputs', 'outputs', 'by_onednn'),
    [(421, 64, 256, False), (4095, 32, 128, False), (4096, 32, 128, True), (421, 256, 64, True), (16, 193, 8, True)],
)
def test_small_products_of_few_channels_are_left_to_pytorch(monkeypatch, rows, inputs, outputs, by_onednn):
    monkeypatch.setattr(linear, 'prefers_onednn', lambda: True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        linear.product(torch.randn(rows, inputs), torch.randn(outputs, inputs))
    assert any(event.key == 'mkldnn::_linear_pointwise' for event in profile.key_averages()) == by_onednn
