"""Writing of region features, which models such as UNITER read instead of pixels."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from florence_mm.errors import UsageError
from florence_mm.formats.coco import clip_box
from florence_mm.formats.coco_boxes import read_coco_boxes
from florence_mm.formats.regions import Regions, RegionWriter
from florence_mm.models.protocol import finds_boxes, region_maps
from florence_mm.ops.detected_regions import FoundRegions, choose_boxes, pool_regions

from .base import Inferencer
from .inputs import Picture, ReadInput
from .setup import wrong_kind


class RegionInferencer(Inferencer):
    """Write the features of regions of images with a detector, or of given boxes with any model that has maps.

    ::

        inferencer = RegionInferencer('configs/dynamic_head/...py', 'checkpoint.pth')
        inferencer.write('data/coco/train2017', 'data/regions/train2017')

    Args:
        config (str | Path | Config): Config of a detector, or with ``boxes`` of a model with an image tower, its file,
            or the name of a model; the pipeline is that of ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Images per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no test pipeline for images.
        ValueError: the checkpoint lacks weights of the model.
    """

    _scope = 'mmdet'

    def write(
        self,
        images: Picture | Iterable[Picture],
        out: str | Path,
        boxes: str | Path | None = None,
        threshold: float = 0.2,
        least: int = 10,
        most: int = 100,
        skip_bad: bool = False,
    ) -> list[dict[str, Any]]:
        """Write the regions of images.

        Args:
            images: A folder of images, whose names are their paths under it, or files, whose names are file names.
            out: Folder for the region files.
            boxes: Annotations in COCO's format, whose boxes are the regions, with their categories as classes; None:
                the detector's. Images without boxes then get one, the whole image, as background.
            threshold: Lowest score of a detected region, from 0 to 1; 0.2 in UNITER.
            least: As many of the best detections are kept whatever their score; 10 in UNITER.
            most: Most regions of an image; 100 in UNITER.
            skip_bad: Leave out an image that cannot be read or processed; False raises its error.

        Returns:
            One dict per image: ``file`` and ``regions``, their number, or ``error``.

        Raises:
            UsageError: there are no images, the model finds no boxes and none are given, or a number is out of range.
        """
        if not 0 <= threshold <= 1 or not 1 <= least <= most:
            raise UsageError(
                f'threshold is {threshold}, least {least} and most {most}; give a score from 0 to 1, at least 1 region '
                'and no more than most'
            )
        given = None if boxes is None else _GivenBoxes(boxes)
        if given is None and not finds_boxes(self.model):
            raise wrong_kind(self.cfg, self.model, 'a detector, or give boxes')
        classes = given.classes if given is not None else list(self.pipeline.class_names(self.meta))
        root = Path(images) if isinstance(images, (str, Path)) and Path(images).is_dir() else None
        with RegionWriter(out, classes) as writer:

            def name_of(one: ReadInput) -> str:
                if one.file is None:
                    raise UsageError('an image in memory has no name for the region file; give files')
                return os.path.relpath(one.file, root) if root is not None else Path(one.file).name

            def add(batch: Sequence[ReadInput]) -> list[dict[str, Any]]:
                names = [name_of(one) for one in batch]
                if given is None:
                    found = self._detect(batch, len(classes), threshold, least, most)
                else:
                    found = [given.of(name, *one.image.shape[1::-1]) for name, one in zip(names, batch, strict=True)]
                every = self._pool(batch, found)
                for name, regions in zip(names, every, strict=True):
                    writer.add(name, regions)
                return [{'regions': len(regions.boxes)} for regions in every]

            return list(self._stream(images, add, 'finding regions', skip_bad))

    def _pack(self, batch: Sequence[ReadInput]) -> dict[str, Any]:
        return pseudo_collate([self.pipeline(one.image, one.file) for one in batch])

    @torch.no_grad()
    def _detect(self, batch: Sequence[ReadInput], num_classes: int, *choice: Any) -> list[FoundRegions]:
        found = []
        for one, sample in zip(batch, self.model.test_step(self._pack(batch)), strict=True):
            objects = sample.pred_instances.cpu()
            chosen = choose_boxes(objects.bboxes, objects.scores, objects.labels, num_classes, *choice)
            height, width = one.image.shape[:2]
            found.append(chosen if len(chosen.boxes) else _whole(width, height, num_classes))
        return found

    @torch.no_grad()
    def _pool(self, batch: Sequence[ReadInput], found: Sequence[FoundRegions]) -> list[Regions]:
        """Pool the features of the regions of each image."""
        data = self.model.data_preprocessor(self._pack(batch), False)
        inputs, boxes = data['inputs'], []
        size = tuple(inputs.shape[-2:])
        for one, sample, own in zip(batch, data['data_samples'], found, strict=True):
            height, width = one.image.shape[:2]
            inside = sample.get('img_shape') or size  # without padding
            scale = torch.tensor([inside[1] / width, inside[0] / height] * 2)
            boxes.append((own.boxes * scale).to(inputs.device))
        features = pool_regions(region_maps(self.model, inputs), boxes, size)
        regions = []
        for one, own, pooled in zip(batch, found, features, strict=True):
            arrays = (x.cpu().numpy().astype(np.float32) for x in (pooled, own.boxes, own.probabilities))
            regions.append(Regions(*arrays, one.image.shape[1::-1]))
        return regions


class _GivenBoxes:
    """Boxes of annotations in COCO's format, by names of images."""

    def __init__(self, path: str | Path) -> None:
        content, boxes = read_coco_boxes(path)
        self.classes = [category['name'] for category in content['categories']]
        labels = {category['id']: label for label, category in enumerate(content['categories'])}
        self._of: dict[str, tuple[Tensor, Tensor]] = {}
        for image in content['images']:
            corners, classes = [], []
            for _, category, ignored, box in boxes.for_image(image['id']):
                inside, problem = clip_box(box, image['width'], image['height'])
                if not ignored and problem in (None, 'clipped'):
                    corners.append(inside)
                    classes.append(labels[category])
            self._of[image['file_name']] = torch.tensor(corners).view(-1, 4), torch.tensor(classes).long()

    def of(self, name: str, width: int, height: int) -> FoundRegions:
        """The boxes of an image, with probability 1 of their category."""
        if name not in self._of:
            raise UsageError(f'the annotations have no image {name}; give those of this folder')
        boxes, labels = self._of[name]
        if not len(boxes):
            return _whole(width, height, len(self.classes))
        return FoundRegions(boxes.float(), torch.nn.functional.one_hot(labels + 1, 1 + len(self.classes)).float())


def _whole(width: int, height: int, num_classes: int) -> FoundRegions:
    """The whole image, as background."""
    return FoundRegions(torch.tensor([[0.0, 0, width, height]]), torch.eye(1, 1 + num_classes))
