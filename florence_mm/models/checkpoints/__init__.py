"""Adapters from public checkpoint layouts to ours."""

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
