"""Functions of tensors without parameters or registry: attention, losses, boxes, sampling, collectives.

Not here: modules with weights of their own (``models/layers``).
"""
