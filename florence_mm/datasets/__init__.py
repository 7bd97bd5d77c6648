"""Data sets, mixtures and pipeline transforms that configs name.

Not here: parsing file formats (``formats``), generating data (``corpora``), one-time conversion (``preparation``).
"""

from florence_mm.errors import DataError

from . import transforms
from .base import ImageTextDataset
from .collating import collate_in_one_piece
from .detection import DetectionDataset
from .image_folder import ImageFolderText
from .manifest import ImageTextManifest
from .mixture import WeightedMixture
from .shards import ImageTextShards
from .tasks import TaskManifest
from .texts import TextManifest
from .video_list import VideoList
from .vqa import VQADataset

__all__ = [
    'DataError',
    'DetectionDataset',
    'ImageFolderText',
    'ImageTextDataset',
    'ImageTextManifest',
    'ImageTextShards',
    'TaskManifest',
    'TextManifest',
    'VQADataset',
    'VideoList',
    'WeightedMixture',
    'collate_in_one_piece',
    'transforms',
]
