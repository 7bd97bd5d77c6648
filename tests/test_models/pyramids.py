"""Feature pyramids, and weights at which every part of a module matters."""

import torch
from torch import nn

SIZES = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]


def pyramid(channels=32, batch=2, sizes=SIZES, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(batch, channels, *size) for size in sizes]


def scattered(module, seed=0, std=0.2):
    """Weights at which every part of the module matters."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
    return module
