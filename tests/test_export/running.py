"""The command on configs in memory, and pictures for it."""

import cv2
import numpy as np
import pytest
import torch

from florence_mm.apis.zoo import init_model
from florence_mm.commands import export as command
from florence_mm.commands.main import make_parser

RESIZE = {
    'type': 'mmpretrain.ResizeEdge',
    'scale': 40,
    'edge': 'short',
    'backend': 'pillow',
    'interpolation': 'bicubic',
}
CROP = {'type': 'mmpretrain.CenterCrop', 'crop_size': 32}
CLASSES = 'a cat, a dog, a bird'


def noise(height, width, seed=0):
    """A picture that is not the same everywhere at any scale."""
    numbers = np.random.default_rng(seed)
    coarse = numbers.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    fine = numbers.integers(0, 64, (height, width, 3))
    return (cv2.resize(coarse, (width, height)) * 0.75 + fine).astype(np.uint8)


def run(cfg, out, *options):
    """The command on a config in memory, with weights from its seeds; returns the loaded model."""
    torch.manual_seed(3)
    loaded = init_model(cfg, None, 'cpu')
    args = make_parser(command, 'export').parse_args(['memory.py', str(out), *options])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('florence_mm.apis.zoo.init_model', lambda *_: loaded)
        assert command.run(args) == 0
    return loaded
