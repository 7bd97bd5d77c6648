"""Hooks."""

from .checkpoint import AtomicCheckpointHook
from .class_count import ClassCountHook
from .class_names import ClassNamesHook
from .invalid_loss import InvalidLossHook
from .run_summary import RunSummaryHook
from .throughput import ThroughputHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassCountHook',
    'ClassNamesHook',
    'InvalidLossHook',
    'RunSummaryHook',
    'ThroughputHook',
]
