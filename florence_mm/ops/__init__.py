"""Functions on tensors: attention, losses, boxes, sampling, collectives; fast paths and snapshots for inference.

Not here: modules with weights of their own (``models/layers``).
"""
