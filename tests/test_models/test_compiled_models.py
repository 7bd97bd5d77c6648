"""torch.compile makes one graph of a model, also of one that never ran, and gives what it gives without."""

import pytest
import torch
from instances import assert_same, build, find_smalls
from kinds import Backbone, TextTower, TokenEncoder, numbers

from florence_mm.models.layers.dyhead_block import DyHeadBlock
from florence_mm.models.multimodal.co_attention import CoAttentionFusion
from florence_mm.ops.attention import window_attention
from florence_mm.ops.contrastive import unified_contrastive_loss

pytestmark = pytest.mark.usefixtures('graphs')

SMALLS = find_smalls()
ENCODERS = [name for name, small in SMALLS.items() if isinstance(small.kind, Backbone | TextTower | TokenEncoder)]


def gradients(module, inputs):
    """Gradients of a number that depends on all that a module gives, with the same random numbers each time."""
    torch.manual_seed(0)
    module.zero_grad()
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
    sum((out * numbers(*out.shape).to(out)).sum() for out in outputs).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize('name', ENCODERS)
def test_an_encoder_is_one_graph(name, graphs):
    kind, plain, compiled = SMALLS[name].kind, build(name), build(name)
    items = kind.items(plain)
    compiled.compile(backend='eager', fullgraph=True)
    with torch.inference_mode():
        outputs = kind.outputs(compiled, items)
        assert_same(outputs, kind.outputs(plain, items))
    # with all tokens in view, and with those before alone
    assert graphs() == (2 if isinstance(kind, TokenEncoder) else 1)


@pytest.mark.parametrize('name', [name for name in ENCODERS if isinstance(SMALLS[name].kind, Backbone)])
@pytest.mark.parametrize(
    ('with_cp', 'backend'),
    # torch's backend 'eager' draws other random numbers when it computes a checkpointed block again
    [(False, 'eager'), (True, 'aot_eager')],
)
def test_a_backbone_trains_in_one_graph(name, with_cp, backend, graphs):
    shape = SMALLS[name].kind.shape
    if with_cp and not hasattr(build(name), 'with_cp'):
        pytest.skip('it has no checkpointing; runs for backbones with with_cp')
    plain, compiled = build(name).train(), build(name).train()
    for module in (plain, compiled):
        module.with_cp = with_cp
    compiled.compile(backend=backend, fullgraph=True)
    inputs = (numbers(2, *shape).to(next(plain.parameters()).dtype),)
    wanted, found = gradients(plain, inputs), gradients(compiled, inputs)
    assert wanted.keys() == found.keys() and graphs() == 1
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, msg=lambda text, key=key: f'{key}: {text}')


def test_each_image_size_and_mode_is_one_more_graph_and_no_size_is_free(graphs):
    """Free sizes would be symbols, whose windows take minutes to compile."""
    module = build('CoSwin')
    module.compile(backend='eager', fullgraph=True, dynamic=None)
    dtype = next(module.parameters()).dtype
    for number, size in enumerate([(32, 40), (48, 32), (40, 40), (32, 40)]):
        with torch.inference_mode():
            module(numbers(2, 3, *size).to(dtype))
        assert graphs() == min(number + 1, 3)
    module.train()(numbers(2, 3, 32, 40).to(dtype))[0].sum().backward()
    assert graphs() == 4


def test_fusion_head_and_loss_are_one_graph_each(graphs):
    fusion = CoAttentionFusion(8, 8, 8, num_layers=2, num_heads=2).eval()
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    inputs = (numbers(2, 6, 8), mask, numbers(2, 9, 8, seed=1))
    block, levels = DyHeadBlock(16).eval(), [numbers(2, 16, size, size) for size in (8, 4)]
    image, text = (torch.nn.functional.normalize(numbers(8, 4, seed=seed), dim=1) for seed in (2, 3))
    labels, scale = torch.tensor([3, 0, 3, 5, 5, 5, 1, 2]), torch.tensor(2.0)
    for number, (function, args, of) in enumerate(
        [
            (fusion, inputs, lambda out: [out.text[mask], out.image, out.pooled]),
            (block, (levels,), list),
            (unified_contrastive_loss, (image.requires_grad_(), text, labels, scale), list),
        ]
    ):
        found = of(torch.compile(function, backend='eager', fullgraph=True)(*args))
        for mine, plain in zip(found, of(function(*args)), strict=True):
            torch.testing.assert_close(mine, plain)
        assert graphs() == number + 1


def test_what_inductor_is_given_trains_alike():
    """Through autograd's compiler, where operators that are not seen into bring gradients of their own."""
    config = {'type': 'CoSwin', 'arch': {'embed_dims': 8, 'depths': [2], 'num_heads': [2], 'window_size': 4}}
    from florence_mm.registry import MODELS

    module = MODELS.build({**config, 'img_size': 32, 'patch_size': 4}).train()
    inputs = (numbers(2, 3, 40, 36),)
    wanted = gradients(module, inputs)
    module.compile(backend='aot_eager', fullgraph=True)
    found = gradients(module, inputs)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shifted', [False, True])
def test_compiled_attention_in_bfloat16_is_that_of_float32(shifted):
    qkv, bias = numbers(2, 4 * 9, 3 * 8), numbers(2, 9, 9, seed=1)
    mask = (numbers(4, 9, 9, seed=2) > 0.5) * -100.0 if shifted else None
    compiled = torch.compile(window_attention, backend='eager', fullgraph=True)
    with torch.inference_mode():
        # numbers that bfloat16 holds, so that only what is computed in it is rounded
        rounded, bias = qkv.bfloat16(), bias.bfloat16()
        wanted = window_attention(rounded.float(), bias.float(), 2, mask)
        found = compiled(rounded, bias, 2, mask)
    assert found.dtype == torch.bfloat16 and (found.float() - wanted).abs().max() < 0.03 < wanted.std()
