"""Checkpoints: reading files, converting public layouts to our names, fitting tensors to a model's shapes.

Not here: checkpoints of training runs and resuming (``engine``).
"""

from .contents import check_values, check_whole_file
from .conversion import ConversionReport, convert_file
from .exporting import EXPORTS, Export, Exported, export_state_dict, register_export
from .formats import convert_state_dict
from .loading import LoadReport, PretrainedInit, load_checkpoint
from .reading import plain_meta, read_checkpoint
from .renaming import FORMATS, Format, register_format
from .writing import write_safetensors

__all__ = [
    'EXPORTS',
    'ConversionReport',
    'Export',
    'Exported',
    'FORMATS',
    'Format',
    'LoadReport',
    'PretrainedInit',
    'check_values',
    'check_whole_file',
    'convert_file',
    'convert_state_dict',
    'export_state_dict',
    'load_checkpoint',
    'plain_meta',
    'read_checkpoint',
    'register_export',
    'register_format',
    'write_safetensors',
]
