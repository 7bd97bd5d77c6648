"""Stateless functions on tensors: attention, losses, boxes, sampling, collectives.

Not here: modules with weights of their own (``models/layers``).
"""
