"""Models: backbones, text towers, algorithms, checkpoint adapters."""

from . import algorithms, backbones, checkpoints, text
