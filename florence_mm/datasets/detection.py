"""Images with boxes from COCO-format files."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from florence_mm.errors import DataError
from florence_mm.formats.coco import clip_box
from florence_mm.formats.coco_boxes import read_coco_boxes
from florence_mm.registry import DATASETS
from florence_mm.utils.limits import check_limit, limit_of
from florence_mm.utils.nearest import did_you_mean
from florence_mm.utils.progress import ProgressLog

from .arguments import (
    build_transforms,
    check_indices,
    check_shared_arguments,
    check_skip_bad,
    classes_given_once,
    image_prefix,
    require,
    require_flags,
)
from .federated import LabelSources
from .reading import check_scaled, load_checked, run_pipeline
from .skipping import SkipCounter

OBJECT = 'object'  # the one class of a class-agnostic data set
# an instance in memory; a dict takes ten times as much
_INSTANCE = np.dtype([('x1', '<f8'), ('y1', '<f8'), ('x2', '<f8'), ('y2', '<f8'), ('label', '<i4'), ('ignore', 'i1')])


@DATASETS.register_module()
class DetectionDataset(BaseDataset):
    """Detection data set of a COCO-format file for mmdet's pipelines; whatever is left out is counted or an error.

    Unusual contents:

    ==================================  ==============================================================================
    a box partly outside its image      is clipped; the number is logged
    a box wholly outside or without     is left out; the number is logged, and more than ``max_bad_boxes`` is an error
    area
    an image without boxes              is kept, as an image of background; the number is logged
    a crowd (``iscrowd``), or a box     is kept with ``ignore_flag`` 1, as mmdet keeps crowds: a region to ignore, no
    marked ``ignore``                   object
    an image file that is missing,      is an error, or with ``skip_bad`` is left out and counted
    empty, cut off or no image, or of
    another size than the file says
    unknown ids, ids that occur twice,  are an error
    missing keys, damaged JSON
    ==================================  ==============================================================================

    Federated files (LVIS, and files merged from sources with different classes) say which classes are annotated in
    each image (:class:`~florence_mm.datasets.federated.LabelSources`). The sample then has ``annotated_labels``, an
    int64 array of labels; put it into the ``meta_keys`` of ``PackDetInputs``, so that the head takes only these classes
    as negatives.

    ``metainfo`` has ``classes``, and in test mode ``ann_file`` (from which
    :class:`florence_mm.evaluation.DetectionMetric` takes the ground truth) and with ``skip_bad`` ``num_skipped``.
    Without paths, training sets of the same classes can be concatenated.

    Args:
        ann_file (str): The annotation file.
        data_root (str): Folder that relative paths start from.
        data_prefix (str | dict): Folder of the images, ``dict(img='train')`` or ``'train'``.
        classes (Sequence[str] | None): The classes in the order of their labels; boxes of other categories are left
            out and counted in the log. None: the categories of the file, ordered by id.
        held_out (Sequence[str]): Classes that must not be seen in training. They are not classes of the data set, and
            images that show one are left out and counted in the log: the object would be trained as background.
        class_agnostic (bool): All boxes have the one class "object".
        max_bad_boxes (int | float): How many boxes without area in their image may be left out: a number, or below 1 a
            fraction of the annotations.
        check_files (bool): List the image folders at the start and look for each image.
        skip_bad (dict | None): ``dict(max=...)`` skips unusable images, logs their number, and raises beyond ``max``
            images (a number below 1 is a fraction of the images). In training an image that cannot be read is replaced
            by the next usable one. In test mode all images are read at the start, and unreadable ones are left out.
        keep_empty (bool): Keep images without boxes in training. Test mode always keeps them.
        pipeline, test_mode, metainfo, indices, lazy_init: passed to :class:`mmengine.dataset.BaseDataset`; transforms
            are looked up in our registry first.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the file is unusable, or too much of it is.
        ValueError: arguments contradict each other.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | dict = '',
        classes: Sequence[str] | None = None,
        held_out: Sequence[str] = (),
        class_agnostic: bool = False,
        max_bad_boxes: int | float = 0.01,
        check_files: bool = True,
        skip_bad: dict | None = None,
        keep_empty: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        classes, metainfo = classes_given_once(classes, metainfo)
        check_skip_bad(skip_bad, 'images')
        check_shared_arguments(ann_file, data_root, pipeline, test_mode, indices, lazy_init)
        require_flags(class_agnostic=class_agnostic, check_files=check_files, keep_empty=keep_empty)
        for key, names in (('classes', classes or ()), ('held_out', held_out)):
            right = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
            require(key, names, right, 'a list of names')
        if held_out and test_mode:
            raise ValueError('held_out is for training; a test is done on all images, so leave it out in test mode')
        check_limit(max_bad_boxes, 'max_bad_boxes', 'boxes')
        transforms = build_transforms(pipeline)
        check_scaled(transforms, 'boxes are in pixels of the whole image')
        self.wanted_classes = None if classes is None else list(classes)
        self.held_out = list(held_out)
        self.class_agnostic = class_agnostic
        self.max_bad_boxes = max_bad_boxes
        self.check_files = check_files
        self.skip_bad = skip_bad
        self.keep_empty = keep_empty or test_mode
        self._skips: SkipCounter | None = None
        super().__init__(
            ann_file=os.fspath(ann_file),
            metainfo=metainfo,
            data_root=os.fspath(data_root),
            data_prefix=image_prefix(data_prefix, 'img'),
            indices=indices,
            pipeline=transforms,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """Load the images with their boxes, in the order of the file.

        Returns:
            list[dict]: ``img_path``, ``img_id``, ``height``, ``width`` and ``instances``, which stay packed until
            :meth:`get_data_info`.
        """
        content, boxes = read_coco_boxes(self.ann_file)
        label_of = self._labels(content['categories'])
        self.sources = LabelSources(content, {} if self.class_agnostic else label_of, self.ann_file)
        held_out = {item['id'] for item in content['categories'] if item['name'] in self.held_out}
        self._skips = None if self.skip_bad is None else SkipCounter(self.ann_file, self.skip_bad['max'])
        usable = self._with_files(content['images'])
        if self._skips is not None:
            self._skips.finish_lines(len(content['images']))
        counts: Counter = Counter()
        data_list = []
        progress = ProgressLog(f'checking the boxes of {self.ann_file}', len(usable))
        for number, image in enumerate(usable):
            image_boxes = boxes.for_image(image['id'])
            if not held_out.isdisjoint(category for _, category, _, _ in image_boxes):
                counts['held out'] += 1
                continue
            instances = self._instances(image, image_boxes, label_of, counts)
            if not instances:
                counts['empty'] += 1
                if not self.keep_empty:
                    continue
            data_list.append(
                {
                    'img_path': self._path(image),
                    'img_id': image['id'],
                    'height': image['height'],
                    'width': image['width'],
                    'instances': np.array(instances, _INSTANCE).tobytes(),
                    **self.sources.entry(image, (category for _, category, _, _ in image_boxes)),
                }
            )
            progress.update(number + 1)
        self._report(counts, len(content['images']), len(boxes))
        if self.test_mode and self._skips is not None:
            data_list = self._with_readable(data_list)
        if not data_list:
            raise DataError(f'{self.ann_file} leaves no image to use; look at `classes`, `held_out` and `keep_empty`')
        check_indices(self._indices, len(data_list), self.ann_file)
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Return the entry of an image, with ``annotated_labels`` if not every class is annotated in it.

        Each of ``instances`` has ``bbox`` (x1, y1, x2, y2), ``bbox_label`` and ``ignore_flag``, as in
        :class:`mmdet.datasets.CocoDataset`.
        """
        info = super().get_data_info(idx)
        info['instances'] = [
            {'bbox': box, 'bbox_label': label, 'ignore_flag': ignore}
            for *box, label, ignore in np.frombuffer(info['instances'], _INSTANCE).tolist()
        ]
        labels = self.sources.annotated_labels(info)
        if labels is not None:
            info['annotated_labels'] = labels
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of the objects of an image, for :class:`mmengine.dataset.ClassBalancedDataset`."""
        instances = self.get_data_info(idx)['instances']
        return [instance['bbox_label'] for instance in instances if not instance['ignore_flag']]

    def _labels(self, categories: list[dict]) -> dict[int, int]:
        """Map category ids to labels and set ``metainfo['classes']``."""
        ids = {category['name']: category['id'] for category in sorted(categories, key=lambda item: item['id'])}
        for name in [*(self.wanted_classes or []), *self.held_out]:
            if name not in ids:
                hint = did_you_mean(str(name), ids, f'; it has {", ".join(map(repr, list(ids)[:10]))}')
                raise DataError(f'{self.ann_file} has no category {name!r}{hint}')
        names = self.wanted_classes or [name for name in ids if name not in self.held_out]
        if len(set(names)) != len(names) or not set(names).isdisjoint(self.held_out) or not names:
            raise ValueError(
                f'{self.ann_file}: `classes` must be different names, some, and none of them in `held_out`'
            )
        self._metainfo['classes'] = (OBJECT,) if self.class_agnostic else tuple(names)
        if self.test_mode:
            self._metainfo['ann_file'] = self.ann_file
        return {ids[name]: 0 if self.class_agnostic else label for label, name in enumerate(names)}

    def _path(self, image: dict) -> str:
        return str(Path(self.data_prefix['img'], image['file_name']))

    def _with_files(self, images: list[dict]) -> list[dict]:
        """The images whose file exists."""
        if not self.check_files:
            return images
        folders: dict[Path, set[str]] = {}
        found = []
        for image in images:
            path = Path(self._path(image))
            if path.parent not in folders:
                # list each folder once: a check of each of a million files takes minutes on a network drive
                listing = path.parent.iterdir() if path.parent.is_dir() else ()
                folders[path.parent] = {file.name for file in listing}
            if path.name in folders[path.parent]:
                found.append(image)
                continue
            error = DataError(
                f'{self.ann_file}: the file {path} of image {image["id"]} is missing; correct `data_root` '
                'and `data_prefix`, add the file, or allow some to be left out with skip_bad'
            )
            if self._skips is None:
                raise error
            self._skips.add_line(error)
        return found

    def _with_readable(self, data_list: list[dict]) -> list[dict]:
        """The images that can be read."""
        progress = ProgressLog(f'checking the images of {self.ann_file}', len(data_list))
        readable = []
        for number, info in enumerate(data_list):
            try:
                load_checked(self.pipeline.transforms, {**info, 'instances': []}, *self._checks(info))
                readable.append(info)
            except DataError as error:
                self._skips.add_image(number, error)
            progress.update(number + 1)
        self._metainfo['num_skipped'] = self._skips.total
        return readable

    def _checks(self, info: dict) -> tuple[str, tuple[float, float]]:
        """How messages name an image, and the size that it must have."""
        return f'{self.ann_file}, image {info["img_id"]}', (info['height'], info['width'])

    @property
    def num_skipped(self) -> int:
        """Number of images skipped so far under ``skip_bad``."""
        return self._skips.total if self._skips else 0

    def prepare_data(self, idx: int) -> Any:
        """Apply the pipeline to image ``idx``; None if a transform of it returned None.

        Raises:
            DataError: the image cannot be read, or has another size than the file says.
        """
        info = self.get_data_info(idx)
        return run_pipeline(self.pipeline.transforms, info, *self._checks(info))

    def __getitem__(self, idx: int) -> Any:
        """Return sample ``idx``; in training an image that is skipped or augmented away is replaced by another."""
        if not self._fully_initialized:
            self.full_init()
        image = int(idx)
        for _ in range(1 if self.test_mode else self.max_refetch + 1):
            try:
                sample = self.prepare_data(image)
            except DataError as error:
                if self._skips is None or self.test_mode:
                    raise
                self._skips.add_image(image, error)
                image = (image + 1) % len(self)
                continue
            if sample is not None:
                return sample
            image = self._rand_another()
        raise DataError(f'{self.ann_file}: the pipeline returns None for image after image; see its transforms')

    def _instances(self, image: dict, boxes: list[tuple], label_of: dict[int, int], counts: Counter) -> list[tuple]:
        """Corners, label and ignore flag of the boxes that are kept."""
        instances = []
        for id_, category, ignored, box in boxes:
            if category not in label_of:
                counts['other class'] += 1
                continue
            corners, problem = clip_box(box, image['width'], image['height'])
            if problem is not None:
                counts[problem] += 1
            if problem in ('outside', 'no area'):
                counts.setdefault('first', id_)
                continue
            instances.append((*corners, label_of[category], ignored))
        return instances

    def _report(self, counts: Counter, num_images: int, num_annotations: int) -> None:
        """Log the counts, and raise if too many boxes were left out."""
        bad = counts['outside'] + counts['no area']
        what = f'{bad} of {num_annotations} boxes have no area in their image ({counts["no area"]} have none at all'
        what += f', {counts["outside"]} lie outside; the first is annotation {counts.get("first")})'
        cap = limit_of(self.max_bad_boxes, num_annotations)
        if bad > cap:
            raise DataError(
                f'{self.ann_file}: {what}, more than the {cap} that max_bad_boxes allows; look whether boxes are x, y, '
                'width, height in pixels, or raise max_bad_boxes'
            )
        empty = 'kept as background' if self.keep_empty else 'left out (keep_empty=False)'
        for number, message, level in (
            (bad, f'{what} and were left out', logging.WARNING),
            (counts['clipped'], 'boxes reached out of their image and were clipped', logging.WARNING),
            (counts['held out'], f'of {num_images} images show held-out classes and were left out', logging.INFO),
            (counts['other class'], 'boxes are of categories not in `classes` and were left out', logging.INFO),
            (counts['empty'], f'of {num_images} images have no boxes and were {empty}', logging.INFO),
        ):
            if number:
                text = message if message.startswith(str(number)) else f'{number} {message}'
                print_log(f'{self.ann_file}: {text}', logger='current', level=level)
