"""Models: backbones, text encoders, heads, algorithms, detectors, fusion models, checkpoint adapters."""

from florence_mm.registry import register_models

register_models(__name__)
