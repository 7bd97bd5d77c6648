"""Registered metrics."""

from .captions import CaptionScores
from .detection import DetectionMetric
from .moved_regions import MovedRegions
from .places import PlaceAccuracy
from .retrieval import ImageTextRecall
from .tasks import PhraseRecall, PolygonIoU, ReferringAccuracy, TextAccuracy, WrittenBoxes
from .vqa import VQAAccuracy
from .zero_shot import ZeroShotAccuracy

__all__ = [
    'CaptionScores',
    'DetectionMetric',
    'ImageTextRecall',
    'MovedRegions',
    'PhraseRecall',
    'PlaceAccuracy',
    'PolygonIoU',
    'ReferringAccuracy',
    'TextAccuracy',
    'VQAAccuracy',
    'WrittenBoxes',
    'ZeroShotAccuracy',
]
