"""Tasks made of public annotations: COCO, RefCOCO, Flickr30k Entities, Visual Genome, COCO-Text and TextOCR."""

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mmengine.logging import print_log
from mmengine.utils import is_abs

from florence_mm.errors import DataError
from florence_mm.formats.annotated import AnnotatedPicture
from florence_mm.formats.coco_tasks import read_coco_captions, read_coco_objects, read_refcoco
from florence_mm.formats.flickr30k_entities import read_flickr30k_entities
from florence_mm.formats.scene_text import read_scene_text
from florence_mm.formats.tasks import TaskRow, check_task_row
from florence_mm.formats.visual_genome import read_region_descriptions
from florence_mm.language.tasks import find_task
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_finite

from .arguments import require, require_paths
from .task_rows import count_left_out, is_apart, make_rows, with_coarser_outlines
from .tasks import TaskDataset


class AnnotatedTasks(TaskDataset):
    """Base of data sets that make the rows of one task of public annotations.

    One row a picture, a caption, a class, an expression or a region, by the task. An unusable annotation is an unusable
    row, and where the answer has all annotations of a picture, the picture is one: an answer without it would be wrong.
    Boxes and outlines that reach out of their picture are clipped. What lacks something that the task needs, such as an
    object without an outline, has no row. Both numbers are logged.

    Args:
        task (str): Name or mark of the task, one of :attr:`tasks`.
        ann_file (str): The annotations.
        tolerance (float): How far outlines may be moved so that they have fewer corners, as a fraction of the picture;
            0 leaves them as they are.
        **kwargs: See :class:`~florence_mm.datasets.base.ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file, or a picture that may not be skipped, is unusable.
        ValueError: the annotations do not answer the task.
    """

    #: Tasks that the annotations answer.
    tasks: tuple[str, ...] = ()

    def __init__(self, task: str, ann_file: str, tolerance: float = 0.0, **kwargs: Any) -> None:
        require('task', task, isinstance(task, str), f'one of {", ".join(self.tasks)}')
        self.task = find_task(task).name
        require('task', task, self.task in self.tasks, f'one that the annotations answer: {", ".join(self.tasks)}')
        require('tolerance', tolerance, is_finite(tolerance) and 0 <= tolerance <= 0.1, 'a fraction from 0 to 0.1')
        self.tolerance = float(tolerance)
        super().__init__(ann_file=ann_file, **kwargs)

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures, and for an unusable one its error, which may be skipped; a raised error may not."""
        raise NotImplementedError(f'{type(self).__name__} must implement `iter_pictures`')

    def iter_tasks(self) -> Iterator[tuple[str, TaskRow] | DataError]:
        """Yield the rows of the task."""
        clipped = left_out = 0
        for picture in self.iter_pictures():
            if isinstance(picture, DataError):
                yield picture
                continue
            clipped += picture.clipped
            # of a picture that is wholly unusable the first fault is the row's
            for fault in picture.faults if (apart := is_apart(self.task, picture)) else picture.faults[:1]:
                yield DataError(f'{picture.where}: {fault}')
            if picture.faults and not apart:
                continue
            left_out += count_left_out(self.task, picture)
            if self.tolerance:
                picture = with_coarser_outlines(picture, self.tolerance)
            for row in make_rows(self.task, picture):
                try:
                    check_task_row(row)
                except ValueError as error:
                    yield DataError(f'{picture.where}: {error}')
                    continue
                yield picture.where, row
        if clipped:
            what = f'{clipped} boxes or outlines reached out of their picture and were clipped'
            print_log(f'{self.location}: {what}', logger='current')
        if left_out:
            what = f'{left_out} annotations lack what {self.task} needs (an outline, a box, words) and have no row'
            print_log(f'{self.location}: {what}', logger='current')

    def _under_root(self, path: str) -> str:
        """A path relative to ``data_root``."""
        path = os.fspath(path)
        return path if is_abs(path) else posixpath.join(self.data_root, path)


@DATASETS.register_module()
class CocoTasks(AnnotatedTasks):
    """Tasks about the objects or captions of a COCO-format file.

    Detection, region proposals and segmentation, the class of a region, and open-vocabulary detection, in which every
    class of a picture is asked for in its own row, are made of a file of instances; captions of a file of captions.
    Crowds and objects to be ignored are left out. Masks in run lengths become outlines.

    Args:
        task, ann_file, tolerance, **kwargs: See :class:`AnnotatedTasks`.
    """

    tasks = (
        'detection',
        'region_proposal',
        'open_vocabulary_detection',
        'region_category',
        'region_segmentation',
        'caption',
        'detailed_caption',
        'more_detailed_caption',
    )

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures of the file."""
        if 'caption' in self.task:
            return read_coco_captions(self.ann_file)
        return read_coco_objects(self.ann_file, outlines=self.task == 'region_segmentation')


@DATASETS.register_module()
class RefCocoTasks(AnnotatedTasks):
    """Tasks about the referring expressions of RefCOCO, RefCOCO+ or RefCOCOg, as published.

    An expression with its box (``phrase_grounding``) or outline is a row; the expressions of a region are equally good
    descriptions of it.

    Args:
        ref_file (str): ``refs(unc).p``, ``refs(google).p`` or ``refs(umd).p``, or the same list as JSON, relative to
            ``data_root``. Nothing that a pickle names is called.
        ann_file (str): ``instances.json``.
        split (str): ``'train'``, ``'val'``, ``'test'``, ``'testA'`` or ``'testB'``, whichever the file has.
        task, tolerance, **kwargs: See :class:`AnnotatedTasks`.
    """

    tasks = ('phrase_grounding', 'referring_segmentation', 'region_description', 'open_vocabulary_detection')

    def __init__(self, task: str, ref_file: str, ann_file: str, split: str, **kwargs: Any) -> None:
        require_paths(ref_file=ref_file)
        require('split', split, isinstance(split, str), "the name of a split, such as 'train'")
        self.ref_file = ref_file
        self.split = split
        super().__init__(task, ann_file, **kwargs)

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures of the split."""
        outlines = self.task == 'referring_segmentation'
        return read_refcoco(self.ann_file, self._under_root(self.ref_file), self.split, outlines)


@DATASETS.register_module()
class Flickr30kEntitiesTasks(AnnotatedTasks):
    """Tasks about the captions of Flickr30k Entities, as published.

    A caption with the boxes of its phrases is a row; captions without a box are left out of ``phrase_grounding``.

    Args:
        ann_file (str): The ids of a split, one a line, such as ``train.txt``.
        sentence_folder (str): Folder of the captions, relative to ``data_root``.
        box_folder (str): Folder of the boxes, relative to ``data_root``.
        task, tolerance, **kwargs: See :class:`AnnotatedTasks`.
    """

    tasks = ('phrase_grounding', 'caption')

    def __init__(
        self,
        task: str,
        ann_file: str,
        sentence_folder: str = 'Sentences',
        box_folder: str = 'Annotations',
        **kwargs: Any,
    ) -> None:
        require_paths(sentence_folder=sentence_folder, box_folder=box_folder)
        self.sentence_folder = sentence_folder
        self.box_folder = box_folder
        super().__init__(task, ann_file, **kwargs)

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures of the split."""
        boxes = None if self.task == 'caption' else self._under_root(self.box_folder)
        return read_flickr30k_entities(self.ann_file, self._under_root(self.sentence_folder), boxes)


@DATASETS.register_module()
class VisualGenomeTasks(AnnotatedTasks):
    """Tasks about the region descriptions of Visual Genome, as published.

    Args:
        ann_file (str): ``region_descriptions.json``.
        image_file (str): ``image_data.json``, relative to ``data_root``.
        task, tolerance, **kwargs: See :class:`AnnotatedTasks`.
    """

    tasks = ('dense_region_caption', 'region_description', 'region_proposal', 'phrase_grounding')

    def __init__(self, task: str, ann_file: str, image_file: str = 'image_data.json', **kwargs: Any) -> None:
        require_paths(image_file=image_file)
        self.image_file = image_file
        super().__init__(task, ann_file, **kwargs)

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures of the file."""
        return read_region_descriptions(self.ann_file, self._under_root(self.image_file))


@DATASETS.register_module()
class SceneTextTasks(AnnotatedTasks):
    """Tasks about the words in pictures of COCO-Text or TextOCR, as published; illegible words are left out.

    Args:
        ann_file (str): ``cocotext.v2.json``, ``TextOCR_0.1_train.json`` or their like.
        split (str | None): Only pictures of this ``set``; None: all.
        folders (Mapping | None): Folders by the names that they have in the file. Paths of TextOCR begin with ``train``
            or ``test``, and its archives unpack to ``train_images`` and ``test_images``.
        task, tolerance, **kwargs: See :class:`AnnotatedTasks`.
    """

    tasks = ('ocr_with_region', 'ocr', 'region_ocr')

    def __init__(
        self,
        task: str,
        ann_file: str,
        split: str | None = None,
        folders: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        require(
            'split', split, split is None or isinstance(split, str), "the name of a split, such as 'train', or None"
        )
        named = isinstance(folders, Mapping) and all(isinstance(name, str) for pair in folders.items() for name in pair)
        require('folders', folders, folders is None or named, "names by names, such as dict(train='train_images')")
        self.folders = dict(folders or {})
        self.split = split
        super().__init__(task, ann_file, **kwargs)

    def iter_pictures(self) -> Iterator[AnnotatedPicture | DataError]:
        """Yield the pictures of the split."""
        for picture in read_scene_text(self.ann_file, self.split):
            if not isinstance(picture, DataError):
                folder, slash, rest = picture.image.partition('/')
                picture = replace(
                    picture, image=f'{self.folders.get(folder, folder) if slash else folder}{slash}{rest}'
                )
            yield picture
