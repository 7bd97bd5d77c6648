"""Merging detection sets into one with a common list of classes, as FLOD-9M is made (Florence, section 2.4)."""

from florence_mm.preparation.pseudo_boxes import PseudoBoxCounts, write_pseudo_boxes

from .merge import MergeResult, merge_detection
from .sources import MergePlan, SourceSpec, read_plan

__all__ = [
    'MergePlan',
    'MergeResult',
    'PseudoBoxCounts',
    'SourceSpec',
    'merge_detection',
    'read_plan',
    'write_pseudo_boxes',
]
