"""Layers that several models share: window block, DyHead block, patch embedding, token layout.

Not here: a layer of one model alone, which stands in that model's file.
"""
