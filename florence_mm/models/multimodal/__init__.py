"""Fusion of image and text tokens."""

from .co_attention import CoAttentionLayer, CoAttentionStacks

__all__ = ['CoAttentionLayer', 'CoAttentionStacks']
