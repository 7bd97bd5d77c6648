"""What a config names for its data: data sets, mixtures, and the transforms of pipelines.

Not here: parsing a file format (``formats``), making data (``corpora``), work done once (``preparation``).
"""

from florence_mm.errors import DataError

from . import transforms
from .detection import DetectionDataset
from .image_folder import ImageFolderText
from .manifest import ImageTextManifest
from .mixture import WeightedMixture
from .video_list import VideoList
from .vqa import VQADataset

__all__ = [
    'DataError',
    'DetectionDataset',
    'ImageFolderText',
    'ImageTextManifest',
    'VQADataset',
    'VideoList',
    'WeightedMixture',
    'transforms',
]
