"""Heads of fusion models: ``loss(batch)`` returns their losses, ``predict(batch)`` adds predictions to the samples."""

from .caption import FusionCaptionHead
from .documents import DocumentHead
from .itc import FusionITCHead
from .itm import FusionITMHead
from .masked_regions import FusionMRCHead, FusionMRFRHead
from .mlm import FusionMLMHead
from .ranking import FusionRankingHead
from .tasks import TaskHead
from .vqa import FusionVQAHead
from .written_answer import FusionWrittenAnswerHead

__all__ = [
    'DocumentHead',
    'FusionCaptionHead',
    'FusionITCHead',
    'FusionITMHead',
    'FusionMLMHead',
    'FusionMRCHead',
    'FusionMRFRHead',
    'FusionRankingHead',
    'FusionVQAHead',
    'FusionWrittenAnswerHead',
    'TaskHead',
]
