"""Visual backbones."""

from .coswin import CoSwin

__all__ = ['CoSwin']
