"""Writing of region features, which models such as UNITER read instead of pixels."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
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
from florence_mm.models.protocol import finds_boxes, pool_crops, region_maps
from florence_mm.ops.detected_regions import FoundRegions, choose_boxes, pool_regions
from florence_mm.ops.regions import crop_regions
from florence_mm.utils.numbers import is_whole

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
        features: str = 'map',
        crop_size: int | None = None,
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
            features: ``'map'``: pooled from the maps of the image, whose cells know of what is around them and where
                they are. ``'crops'``: pooled from the box alone, cut out of the image and stretched to a square, as in
                R-CNN (arXiv 1311.2524); such a feature does not tell where its box is.
            crop_size: Side of the squares in pixels; None: ``image_size`` of the config.

        Returns:
            One dict per image: ``file`` and ``regions``, their number, or ``error``.

        Raises:
            UsageError: there are no images, the model finds no boxes and none are given, the config has no
                ``image_size`` and ``crop_size`` is not given, or an argument is out of range.
        """
        side = self._crop_side(features, crop_size)
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
                pooled = self._pool_maps(batch, found) if side is None else self._pool_crops(batch, found, side)
                for name, one, own, rows in zip(names, batch, found, pooled, strict=True):
                    arrays = (x.cpu().numpy().astype(np.float32) for x in (rows, own.boxes, own.probabilities))
                    writer.add(name, Regions(*arrays, one.image.shape[1::-1]))
                return [{'regions': len(own.boxes)} for own in found]

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
    def _pool_maps(self, batch: Sequence[ReadInput], found: Sequence[FoundRegions]) -> Sequence[Tensor]:
        """Pool the features ``(R, C)`` of the regions of each image from its maps."""
        data = self.model.data_preprocessor(self._pack(batch), False)
        inputs, boxes = data['inputs'], []
        size = tuple(inputs.shape[-2:])
        for one, sample, own in zip(batch, data['data_samples'], found, strict=True):
            height, width = one.image.shape[:2]
            inside = sample.get('img_shape') or size  # without padding
            scale = torch.tensor([inside[1] / width, inside[0] / height] * 2)
            boxes.append((own.boxes * scale).to(inputs.device))
        return pool_regions(region_maps(self.model, inputs), boxes, size)

    def _crop_side(self, features: str, crop_size: int | None) -> int | None:
        """Side of the crops in pixels; None: features are those of maps."""
        if features not in ('map', 'crops'):
            raise UsageError(f"features is {features!r}; give 'map' or 'crops'")
        if features == 'map':
            if crop_size is not None:
                raise UsageError(f"crop_size is {crop_size!r}, and features of maps have none; give features='crops'")
            return None
        side = self.cfg.get('image_size') if crop_size is None else crop_size
        if side is None:
            raise UsageError('the config has no image_size, the side of its images; give crop_size')
        if not is_whole(side) or side < 1:
            raise UsageError(f'crop_size is {side!r}; give the side of the crops in pixels, at least 1')
        return side

    @torch.no_grad()
    def _pool_crops(self, batch: Sequence[ReadInput], found: Sequence[FoundRegions], side: int) -> Sequence[Tensor]:
        """Pool the features ``(R, C)`` of the regions of each image from crops, as many at once as images a batch."""
        pairs = zip(batch, found, strict=True)
        crops = (crop for one, own in pairs for crop in self._crops(one.image, own.boxes, side))
        features = []
        while part := list(islice(crops, self.batch_size)):
            inputs = self.model.data_preprocessor({'inputs': part, 'data_samples': None}, False)['inputs']
            features.append(pool_crops(self.model, inputs, side).cpu())
        return torch.cat(features).split([len(own.boxes) for own in found])

    def _crops(self, image: np.ndarray, boxes: Tensor, side: int) -> Tensor:
        """Cut boxes out of an image ``(H, W, 3)``, at least one pixel of it, and stretch them: ``(R, 3, S, S)``."""
        height, width = image.shape[:2]
        inside = boxes.clamp(min=0).minimum(torch.tensor([width - 1, height - 1, width, height]))
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
        crops, _ = crop_regions(pixels, inside, (side, side), square=False)
        return crops.flip(1) if self.pipeline.bgr else crops


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
