"""Layers that others have replaced or hooked are run, in every registered model, also where a fast path reads weights.

Models work as fast as they may here: limits below which small inputs take the common path are set to zero.
"""

import warnings
from copy import deepcopy

import pytest
import torch
from instances import assert_same, build, differ
from test_every_model import MODULES, SMALLS
from torch import nn

from florence_mm.models.layers import clip_block, fusion_layer, swin, transformer
from florence_mm.ops import inference

every_module = pytest.mark.parametrize('name', MODULES)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    for module, limit in ((clip_block, 'FEW_ROWS'), (fusion_layer, 'FEW_ROWS'), (swin, '_QKV_ELEMENTS')):
        monkeypatch.setattr(module, limit, 0)
    for limit in ('_LARGE', '_KEPT'):
        monkeypatch.setattr(inference, limit, 0)
    monkeypatch.setattr(transformer, 'folding_pays', lambda *_: True)


@torch.no_grad()
def run(name, module):
    kind = SMALLS[name].kind
    return kind.outputs(module, kind.items(module))


def run_slowly(name, module):
    with pytest.MonkeyPatch.context() as patch:
        for ops in (inference, transformer):
            patch.setattr(ops, 'is_recorded', lambda: True)
        return run(name, module)


def calls(module, work):
    """Names of the linear layers and convolutions that are called during work."""
    called = set()
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda *_, name=name: called.add(name)) for name, layer in layers]
    work()
    for hook in hooks:
        hook.remove()
    return called


class LowRank(nn.Linear):
    """A linear layer with a low-rank update, as of LoRA, that its weight does not show."""

    def forward(self, x):
        return super().forward(x) + 0.5 * x.sum(-1, keepdim=True) / x.shape[-1]


@every_module
def test_hooks_are_called(name):
    module = build(name)
    slow = calls(module, lambda: run_slowly(name, module))
    assert calls(module, lambda: run(name, module)) == slow


@every_module
def test_an_updated_layer_is_run(name):
    module = build(name)
    linear = [layer for layer in module.modules() if type(layer) is nn.Linear]
    if not linear:
        pytest.skip('no linear layers')
    plain = run(name, module)
    for layer in linear:
        layer.__class__ = LowRank
    found = run(name, module)
    assert_same(found, run_slowly(name, module))
    assert differ(found, plain)


@every_module
def test_dynamically_quantized_linear_layers_work(name):
    module = build(name).float()
    if not any(type(layer) is nn.Linear for layer in module.modules()):
        pytest.skip('no linear layers')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        quantized = torch.ao.quantization.quantize_dynamic(deepcopy(module), {nn.Linear}, torch.qint8)
    assert not any(type(layer) is nn.Linear for layer in quantized.modules())
    assert_same(run(name, quantized), run_slowly(name, quantized))
