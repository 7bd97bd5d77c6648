"""Models: backbones, text towers, heads, algorithms, checkpoint adapters."""

from . import algorithms, backbones, checkpoints, heads, multimodal, text
