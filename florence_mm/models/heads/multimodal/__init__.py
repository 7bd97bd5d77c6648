"""Heads of fusion models: ``loss(model, batch)`` gives their losses, ``predict(model, batch)`` fills the samples."""

from .caption import FusionCaptionHead
from .itm import FusionITMHead
from .mlm import FusionMLMHead
from .vqa import FusionVQAHead

__all__ = ['FusionCaptionHead', 'FusionITMHead', 'FusionMLMHead', 'FusionVQAHead']
