"""Layers shared by several models: Swin's, the DyHead block, the transformer layer, initialisation.

Not here: a layer that only one model uses, which is in that model's file.
"""
