"""Checkpoints: reading files, converting public layouts to our names, fitting tensors to a model's shapes.

Not here: checkpoints of training runs and resuming (``engine``).
"""

from .contents import check_values, check_whole_file
from .formats import convert_state_dict
from .loading import LoadReport, PretrainedInit, load_checkpoint
from .reading import plain_meta, read_checkpoint, write_safetensors
from .renaming import FORMATS, Format, register_format

__all__ = [
    'FORMATS',
    'Format',
    'LoadReport',
    'PretrainedInit',
    'check_values',
    'check_whole_file',
    'convert_state_dict',
    'load_checkpoint',
    'plain_meta',
    'read_checkpoint',
    'register_format',
    'write_safetensors',
]
