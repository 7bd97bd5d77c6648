"""Hooks."""

from .checkpoint import AtomicCheckpointHook
from .class_count import ClassCountHook
from .class_names import ClassNamesHook
from .image_sizes import ImageSizesHook
from .invalid_loss import InvalidLossHook
from .run_summary import RunSummaryHook
from .throughput import ThroughputHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassCountHook',
    'ClassNamesHook',
    'ImageSizesHook',
    'InvalidLossHook',
    'RunSummaryHook',
    'ThroughputHook',
]
