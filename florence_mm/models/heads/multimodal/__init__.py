"""Heads of fusion models: ``loss(batch)`` returns their losses, ``predict(batch)`` adds predictions to the samples."""

from .caption import FusionCaptionHead
from .itc import FusionITCHead
from .itm import FusionITMHead
from .mlm import FusionMLMHead
from .tasks import TaskHead
from .vqa import FusionVQAHead
from .written_answer import FusionWrittenAnswerHead

__all__ = [
    'FusionCaptionHead',
    'FusionITCHead',
    'FusionITMHead',
    'FusionMLMHead',
    'FusionVQAHead',
    'FusionWrittenAnswerHead',
    'TaskHead',
]
