"""Initialisation of weights."""

import math

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


def trunc_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill a tensor from a normal distribution cut at -2 and 2, by one call that a ``TorchFunctionMode`` sees.

    Of torch's function a mode sees a dozen steps over all values, which it cannot leave out.
    """
    if has_torch_function_unary(tensor):
        return handle_torch_function(trunc_normal_, (tensor,), tensor, std=std)
    return nn.init.trunc_normal_(tensor, std=std)


def init_bert_weights(module: nn.Module, std: float = 0.02) -> None:
    """Initialise linear layers and embeddings with normal weights and zero biases, as in BERT."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def init_smooth_rows(weight: Tensor, rows: range, std: float) -> None:
    """Initialise rows of a table as waves over their number, so that neighbours are alike and distant ones are not.

    Half of the C channels are sines and half cosines, of half a wave over all rows up to a quarter of a wave from a row
    to the next, turned by a random rotation: the product of two rows depends on their distance alone (nearly, if C is
    odd). The waves are those of sinusoidal position embeddings (arXiv 1706.03762, section 3.5); that a learned table
    starts with them is ours.

    Args:
        weight: ``(N, C)``, changed in place.
        rows: numbers of the rows that are initialised, at least one, without a step.
        std: root of the mean square of their values.
    """
    count, channels = len(rows), weight.shape[1]
    rates = torch.logspace(0, math.log10(max(1.0, count / 2)), -(-channels // 2)) * math.pi / count
    angles = torch.arange(count)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)[:, :channels]
    rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
    values = weight.detach().clone()
    values[rows.start : rows.stop] = waves @ rotation * (std * math.sqrt(2))
    with torch.no_grad():
        weight.copy_(values)
