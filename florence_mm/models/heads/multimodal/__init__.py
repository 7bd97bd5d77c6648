"""Heads of fusion models: ``loss(model, batch)`` gives their losses, ``predict(model, batch)`` fills the samples."""

from .itm import FusionITMHead
from .mlm import FusionMLMHead
from .vqa import FusionVQAHead

__all__ = ['FusionITMHead', 'FusionMLMHead', 'FusionVQAHead']
