"""Estimated memory of a training step, against counts by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from florence_mm.engine.memory import StepMemory, count_step
from florence_mm.engine.memory_budget import in_rows, kept_of_parts, loss_of_pairs, states_of_copy, states_of_part


def on_meta(*shape):
    return torch.empty(shape, device='meta', requires_grad=True)


def test_a_linear_layer_keeps_its_input_and_its_weight_in_bfloat16():
    with torch.device('meta'):
        layer = nn.Linear(8, 16)
    x = on_meta(4, 8)
    assert count_step(layer, lambda: layer(x)).kept == 2 * (4 * 8 + 16 * 8)
    # without a gradient of the input the weight is not needed
    images = torch.empty(4, 8, device='meta')
    step = count_step(layer, lambda: layer(images))
    assert step.kept == 2 * 4 * 8 and step.parameters == 8 * 16 + 16
    # weight, gradient, two moments, bucket
    assert step.states == 20 * step.parameters


def test_a_norm_keeps_float32_and_a_tensor_kept_twice_counts_once():
    with torch.device('meta'):
        norm = nn.LayerNorm(8)
    x = on_meta(4, 8)
    # the input, and a mean and a deviation a row
    alone = 4 * (4 * 8 + 4 + 4)
    assert count_step(norm, lambda: norm(x)).kept == alone
    assert count_step(norm, lambda: (norm(x), x * x)).kept == alone
    assert count_step(norm, lambda: norm(x.bfloat16())).kept == alone


def test_attention_keeps_no_probabilities():
    q, k, v = (on_meta(2, 3, 7, 4) for _ in range(3))
    step = count_step(nn.Identity(), lambda: F.scaled_dot_product_attention(q, k, v))
    # q, k, v and the output in bfloat16; a number a row, of which the kernel pads the rows to 32; two random seeds
    assert step.kept == 2 * 4 * (2 * 3 * 7 * 4) + 4 * 2 * 3 * 32 + 2 * 8


class TextBlock(nn.Module):
    """A block by the name of those that are recomputed."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return F.gelu(self.fc(x))


def test_recomputed_blocks_keep_their_input_and_one_of_them_the_rest():
    with torch.device('meta'):
        model = nn.Sequential(TextBlock(8), TextBlock(8), nn.Linear(8, 8))
    model[1].requires_grad_(False)
    x = on_meta(4, 8)
    step = count_step(model, lambda: model(x))
    # in bfloat16 the layer's input, its weight and its output, which GELU keeps; the second needs no input, as its
    # weight has no gradient
    first, second, last = 2 * (32 + 64 + 32), 2 * (64 + 32), 2 * (32 + 64)
    assert [block[1] for block in step.blocks] == [first, second]
    assert step.activations() == step.kept == first + second + last
    assert step.activations(['TextBlock']) == last + first + 4 * 32 + 2 * 32
    assert (step.parameters, step.frozen) == (2 * 72, 72)


def test_components_of_a_step():
    with torch.device('meta'):
        model = nn.Sequential(TextBlock(8), nn.Linear(8, 3), TextBlock(16))
    first, beside, second = 8 * 9, 3 * 9, 16 * 17
    step = StepMemory(first + beside + second, 0, 0, ())
    whole = states_of_copy(step)
    assert list(whole.values()) == [4 * 371, 4 * 371, 8 * 371, 4 * 371] and sum(whole.values()) == step.states
    part = states_of_part(step, model, 3)
    # of what is in no block a copy and its gradient in bf16; of the larger block two, its gradient, and that in fp32
    gathered = 4 * beside + 10 * second
    assert list(part.values()) == [495, 495, 990, gathered]  # rounded up
    # 1,024 pairs of one process are one chunk of 4 MiB, which is kept; both softmaxes and the logits live at a time
    assert loss_of_pairs(1024, 1, 2) == {'features of the loss': 16 * 1024 * 2, 'logits of the loss': 4 * 4 * 2**20}
    # 2**20 pairs in all: 64 rows are 256 MiB, none is kept
    assert loss_of_pairs(1024, 1024, 2)['logits of the loss'] == 3 * 2**28
    cache = kept_of_parts(StepMemory(0, 0, 100, (('TextBlock', 60, 8),)), 5, 7, ['TextBlock'])
    assert cache == {'activations': 100 - 60 + 8 + 60, 'gradient cache': 16 * 5 * 7}
    lines = in_rows({'one': {'weights': 2**30}, 'other': {'weights': 0, 'logits': 2**29}}, 2**31)
    assert [line.split()[-2:] for line in lines[1:]] == [
        ['1.000', '0.000'],
        ['0.000', '0.500'],
        ['2.000', '2.000'],
        ['3.000', '2.500'],
    ]
