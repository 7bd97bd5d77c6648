"""Estimated memory of a training step, against counts by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from florence_mm.engine.memory import count_step


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
