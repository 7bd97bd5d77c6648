"""Weights from files: reading them, one adapter a public layout, and fitting them to a model's shapes.

Not here: the checkpoints of a run that is resumed (``engine``).
"""

from .formats import FORMATS, Format, convert_state_dict
from .loading import LoadReport, PretrainedInit, load_checkpoint
from .reading import read_checkpoint, write_safetensors

__all__ = [
    'FORMATS',
    'Format',
    'LoadReport',
    'PretrainedInit',
    'convert_state_dict',
    'load_checkpoint',
    'read_checkpoint',
    'write_safetensors',
]
