"""Data sets, mixtures and pipeline transforms that configs name.

Not here: parsing file formats (``formats``), generating data (``corpora``), one-time conversion (``preparation``).
"""

from florence_mm.errors import DataError

from . import transforms
from .base import ImageTextDataset
from .collating import collate_in_one_piece
from .detection import DetectionDataset
from .documents import DocumentDataset
from .example_prompts import FewShotDataset
from .false_samples import WithFalseSamples
from .image_folder import ImageFolderText
from .manifest import ImageTextManifest
from .mixture import WeightedMixture
from .shards import ImageTextShards
from .task_sources import CocoTasks, Flickr30kEntitiesTasks, RefCocoTasks, SceneTextTasks, VisualGenomeTasks
from .tasks import TaskManifest
from .texts import TextManifest
from .video_list import VideoList
from .vqa import VQADataset

__all__ = [
    'CocoTasks',
    'DataError',
    'DetectionDataset',
    'DocumentDataset',
    'FewShotDataset',
    'Flickr30kEntitiesTasks',
    'ImageFolderText',
    'ImageTextDataset',
    'ImageTextManifest',
    'ImageTextShards',
    'RefCocoTasks',
    'SceneTextTasks',
    'TaskManifest',
    'TextManifest',
    'VQADataset',
    'VideoList',
    'VisualGenomeTasks',
    'WeightedMixture',
    'WithFalseSamples',
    'collate_in_one_piece',
    'transforms',
]
