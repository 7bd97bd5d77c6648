"""One detection set out of many, as FLOD-9M is (Florence, section 2.4): streamed, with one map of class names."""

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
