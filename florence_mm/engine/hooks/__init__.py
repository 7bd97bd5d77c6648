"""Hooks of the runner."""

from .checkpoint import AtomicCheckpointHook
from .class_names import ClassNamesHook
from .invalid_loss import InvalidLossHook
from .run_summary import RunSummaryHook

__all__ = ['AtomicCheckpointHook', 'ClassNamesHook', 'InvalidLossHook', 'RunSummaryHook']
