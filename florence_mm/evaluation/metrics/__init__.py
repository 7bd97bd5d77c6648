"""Registered metrics."""

from .captions import CaptionScores
from .detection import DetectionMetric
from .retrieval import ImageTextRecall
from .vqa import VQAAccuracy
from .zero_shot import ZeroShotAccuracy

__all__ = ['CaptionScores', 'DetectionMetric', 'ImageTextRecall', 'VQAAccuracy', 'ZeroShotAccuracy']
