"""Image-text-label and detection data sets and their transforms."""

from . import transforms
from .detection import DetectionDataset
from .errors import DataError
from .image_folder import ImageFolderText
from .manifest import ImageTextManifest
from .mixture import WeightedMixture

__all__ = [
    'DataError',
    'DetectionDataset',
    'ImageFolderText',
    'ImageTextManifest',
    'WeightedMixture',
    'transforms',
]
