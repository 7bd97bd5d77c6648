"""Image-text-label data sets and their transforms."""

from . import transforms
from .errors import DataError
from .image_folder import ImageFolderText
from .manifest import ImageTextManifest
from .mixture import WeightedMixture

__all__ = ['DataError', 'ImageFolderText', 'ImageTextManifest', 'WeightedMixture', 'transforms']
