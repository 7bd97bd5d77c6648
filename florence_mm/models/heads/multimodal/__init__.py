"""Heads of fusion models: ``loss(batch)`` returns their losses, ``predict(batch)`` adds predictions to the samples."""

from .caption import FusionCaptionHead
from .documents import DocumentHead
from .itc import FusionITCHead
from .itm import FusionITMHead
from .mlm import FusionMLMHead
from .tasks import TaskHead
from .vqa import FusionVQAHead
from .written_answer import FusionWrittenAnswerHead

__all__ = [
    'DocumentHead',
    'FusionCaptionHead',
    'FusionITCHead',
    'FusionITMHead',
    'FusionMLMHead',
    'FusionVQAHead',
    'FusionWrittenAnswerHead',
    'TaskHead',
]
