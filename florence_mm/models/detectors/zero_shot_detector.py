"""Zero-shot object detection with Florence (arXiv 2111.11432, section 3.6).

The backbone is frozen, a class-agnostic detector is trained for proposals, and each proposal is classified like an
image by the two towers (section 3.1). Details that the paper does not give are options here: the input of the
classifier for a proposal, the combination of both scores, and the suppression of boxes.

Shape legend: ``B`` images, ``N`` proposals per image, ``C`` channels, ``D`` embedding width, ``K`` classes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.language.prompts import get_class_names
from florence_mm.models.base import FlorenceModel, build_part
from florence_mm.ops.boxes import nms
from florence_mm.ops.regions import crop_regions, region_means
from florence_mm.registry import MODELS

from .zero_shot_checks import check_options, check_parts, height_and_width, mean_and_std


@MODELS.register_module()
class ZeroShotDetector(FlorenceModel):
    """Zero-shot detector: class-agnostic proposals, each classified by a two-tower model from class names.

    Training trains the detector with all labels set to 0; the classifier is always frozen. Batches and data samples are
    mmdet's. The model expects RGB.

    Args:
        detector: class-agnostic mmdet detector (or its config) with a ``backbone``.
        classifier: :class:`UniCL` (or its config). A config without ``image_encoder`` shares the detector's backbone,
            which must then be frozen and return the last stage that the towers were trained with.
        region: input of the classifier. ``'crop'``: the image encoder encodes the pixels around a proposal;
            ``'feature'``: the last map of the shared backbone is averaged over the proposal, which costs next to
            nothing, but has a stride of 32 pixels.
        crop_size: side, or (height, width), of the crops.
        context: side of a crop in multiples of the proposal's; with several, the features of all crops of a proposal
            are summed, as ViLD does with 1 and 1.5 (arXiv 2104.13921, section 3.2).
        square_crop: crop squares, which keep the aspect ratio; ``False``: stretch the proposal to ``crop_size``.
        frozen_backbone: freeze the detector's backbone, its batch statistics included (the paper's choice).
        proposal_weight: a in ``score = proposal_score ** a * class_probability ** (1 - a)``.
        background: names of things that are not to be detected. They take part in the softmax over classes, but are not
            reported. Without them, every proposal is assigned to one of the classes.
        classes: class names, or the name of a data set, see :meth:`set_classes`.
        templates: prompt templates; None: the classifier's.
        classes_per_box: most classes reported per proposal.
        score_thr: only higher scores are reported; in [0, 1).
        nms_iou: IoU threshold of the non-maximum suppression in each class, 0 to 1.
        max_per_img: most boxes reported per image.
        regions_at_once: crops that are encoded together, those of several images of a batch too.
        data_preprocessor: ``mmdet.DetDataPreprocessor`` or its config; None: the detector's.
        init_cfg: see mmengine.

    Raises:
        ValueError: an option is out of range, the detector has several classes, or a shared backbone is not frozen or
            gets images normalised differently from the classifier's.
    """

    def __init__(
        self,
        detector: dict | nn.Module,
        classifier: dict | nn.Module,
        region: str = 'crop',
        crop_size: int | tuple[int, int] = 224,
        context: Sequence[float] = (1.0, 1.5),
        square_crop: bool = True,
        frozen_backbone: bool = True,
        proposal_weight: float = 0.5,
        background: Sequence[str] = (),
        classes: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        classes_per_box: int = 1,
        score_thr: float = 0.0,
        nms_iou: float = 0.5,
        max_per_img: int = 100,
        regions_at_once: int = 64,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if isinstance(detector, dict):
            detector = dict(detector)
            own = detector.pop('data_preprocessor', None)
        else:
            own = detector.data_preprocessor
        super().__init__(data_preprocessor or own or BaseDataPreprocessor(), init_cfg)
        self.detector = build_part(detector)
        if isinstance(classifier, dict):
            classifier = {**classifier, 'image_encoder': classifier.get('image_encoder') or self.detector.backbone}
        self.classifier = build_part(classifier)
        self.region = region
        self.crop_size = height_and_width(crop_size)
        self.context = tuple(context)
        self.square_crop = square_crop
        self.frozen_backbone = frozen_backbone
        self.proposal_weight = proposal_weight
        self.background = tuple(background)
        self.templates = templates
        self.classes_per_box = classes_per_box
        self.score_thr = score_thr
        self.nms_iou = nms_iou
        self.max_per_img = max_per_img
        self.regions_at_once = regions_at_once
        self.class_names: tuple[str, ...] = ()
        check_options(self)
        check_parts(self)
        self.classifier.requires_grad_(False)
        if frozen_backbone:
            self.detector.backbone.requires_grad_(False)
        if classes is not None:
            self.set_classes(classes)

    @property
    def shares_backbone(self) -> bool:
        """Whether the classifier's image encoder is the detector's backbone."""
        return self.classifier.image_encoder is self.detector.backbone

    def set_classes(
        self,
        names: str | Sequence[str],
        templates: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set the classes to predict; their features are computed when first needed, and cached.

        Args:
            names: class names in the order of the labels, or the name of a data set.
            templates: prompt templates; None: those given to the model, else the classifier's.
            dtype: type in which the text tower computes their features, see :meth:`.UniCL.set_classes`.

        Raises:
            ValueError: no names, a name that is also in ``background``, or a ``dtype`` of whole numbers.
        """
        names = get_class_names(names) if isinstance(names, str) else list(names)
        both = sorted(set(names) & set(self.background))
        if both:
            raise ValueError(f'{both[0]!r} is a class and in background too; take it out of one of them')
        if not names:
            raise ValueError('no class names were given; zero-shot detection needs at least one')
        templates = self.templates if templates is None else templates
        # a classifier of one's own need not know types
        further = {} if dtype is None else {'dtype': dtype}
        self.classifier.set_classes([*names, *self.background], templates, **further)
        self.class_names = tuple(names)

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Any:
        """Return the raw output of the detector's heads.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed.
            data_samples: one ``mmdet.structures.DetDataSample`` per image.
        """
        return self.detector(inputs, data_samples, mode='tensor')

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the detector's losses, with all objects in one class; ``data_samples`` are not changed."""
        return self.detector.loss(inputs, [_without_classes(sample) for sample in data_samples])

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any], rescale: bool = True) -> list:
        """Detect objects of the set classes.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed.
            data_samples: B samples with ``img_shape``, and ``scale_factor`` and ``ori_shape`` if images were resized.
            rescale: give boxes in pixels of the original image; ``False``: of ``inputs``.

        Returns:
            The samples with ``pred_instances``: ``bboxes (n, 4)``, ``scores (n,)`` in falling order and ``labels
            (n,)``; and ``label_names`` in their metainfo, the name of each label.

        Raises:
            ValueError: no classes are set.
        """
        if not self.class_names:
            raise ValueError('the detector has no classes; call set_classes(names) or give classes in its config')
        proposals, maps = self._propose(inputs, data_samples)
        boxes = [found.bboxes for found in proposals]  # (N, 4) each
        sizes = [sample.img_shape[:2] for sample in data_samples]  # the rest of the inputs is padding
        if not sum(map(len, boxes)):
            probabilities = inputs.new_zeros(0, len(self.class_names))
        elif self.region == 'feature':
            cell = inputs.shape[2] / maps.shape[2], inputs.shape[3] / maps.shape[3]
            parts = zip(maps, boxes, sizes, strict=True)
            features = [self._map_features(one, found, cell, size) for one, found, size in parts if len(found)]
            probabilities = self.class_probabilities(torch.cat(features))
        else:
            images = [image[:, :height, :width] for image, (height, width) in zip(inputs, sizes, strict=True)]
            probabilities = self.class_probabilities(self._crop_features(images, boxes))
        parts = zip(data_samples, proposals, probabilities.split([len(found) for found in boxes]), strict=True)
        for sample, found, of_classes in parts:
            sample.pred_instances = self._select(found.bboxes, found.scores, of_classes)
            if rescale:
                _to_original(sample)
            sample.set_metainfo({'label_names': self.class_names})
        return list(data_samples)

    def class_probabilities(self, features: Tensor) -> Tensor:
        """Classify normalised image features ``(N, D)`` to ``(N, K)``; with ``background`` rows sum to less than 1."""
        return self.classifier.class_logits(features).softmax(1)[:, : len(self.class_names)]

    def _propose(self, inputs: Tensor, data_samples: Sequence[Any]) -> tuple[list[InstanceData], Tensor | None]:
        """Predict proposals, in pixels of the input; with ``region='feature'`` also the last map ``(B, C, h, w)``."""
        if self.region == 'crop':
            samples = self.detector.predict(inputs, data_samples, rescale=False)
            return [sample.pred_instances for sample in samples], None
        kept: list[Tensor] = []
        # one pass through the backbone serves both; `backbone` is its name in all mmdet detectors
        hook = self.detector.backbone.register_forward_hook(lambda module, args, maps: kept.append(maps[-1]))
        try:
            samples = self.detector.predict(inputs, data_samples, rescale=False)
        finally:
            hook.remove()
        return [sample.pred_instances for sample in samples], kept[0]

    def _map_features(self, maps: Tensor, boxes: Tensor, cell: tuple[float, float], size: tuple[int, int]) -> Tensor:
        """Compute features ``(N, D)`` of boxes by averaging the map ``(C, h, w)`` of the shared backbone."""
        limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
        pooled = region_means(maps, torch.minimum(boxes.clamp(min=0), limits), cell)  # (N, C)
        return self.classifier.project_images(pooled)

    def _crop_features(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Compute features of the boxes ``(N, 4)`` of each image by encoding crops.

        Crops of several images are encoded together, ``regions_at_once`` at a time, as one with few proposals would
        leave a device idle.

        Args:
            images: normalised images ``(3, H, W)``.
            boxes: ``(N, 4)`` of each.

        Returns:
            ``(sum of N, D)``, L2-normalised.
        """
        owners = [image for image, found in enumerate(boxes) for _ in range(len(found))]
        every, features = torch.cat(list(boxes)), []
        for start in range(0, len(owners), self.regions_at_once):
            counts = Counter(owners[start : start + self.regions_at_once])  # in the order of the images
            some = every[start : start + self.regions_at_once].split(list(counts.values()))
            parts = [(self._unnormalized(images[image]), part) for image, part in zip(counts, some, strict=True)]
            total = sum(self.classifier.extract_image_feat(self._crops(parts, context)) for context in self.context)
            features.append(F.normalize(total, dim=-1))
        return torch.cat(features)

    def _unnormalized(self, image: Tensor) -> Tensor:
        """Pixels of an image that the detector's preprocessor normalised."""
        mean, std = mean_and_std(self.data_preprocessor)
        return image * std.to(image) + mean.to(image)

    def _crops(self, parts: Sequence[tuple[Tensor, Tensor]], context: float) -> Tensor:
        """Crop boxes out of images, as inputs of the classifier's image encoder."""
        crops = [crop_regions(image, boxes, self.crop_size, context, self.square_crop) for image, boxes in parts]
        pixels, inside = map(torch.cat, zip(*crops, strict=True))
        # pixels outside the image get the classifier's mean, which becomes 0 after normalisation
        fill = mean_and_std(self.classifier.data_preprocessor)[0].to(pixels)
        return self.classifier.data_preprocessor({'inputs': pixels + (1 - inside) * fill})['inputs']

    def _select(self, boxes: Tensor, proposal_scores: Tensor, probabilities: Tensor) -> InstanceData:
        """Combine scores, keep the best classes of each box, drop low scores and duplicates."""
        a = self.proposal_weight
        scores = proposal_scores.clamp(0, 1)[:, None] ** a * probabilities ** (1 - a)  # (N, K)
        scores, labels = scores.topk(min(self.classes_per_box, scores.shape[1]))  # (N, classes_per_box)
        kept, place = (scores > self.score_thr).nonzero(as_tuple=True)
        boxes, scores, labels = boxes[kept], scores[kept, place], labels[kept, place]
        order = _nms_of_each_class(boxes, scores, labels, self.nms_iou)[: self.max_per_img]
        return InstanceData(bboxes=boxes[order], scores=scores[order], labels=labels[order])

    def train(self, mode: bool = True) -> 'ZeroShotDetector':
        """Set the mode, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        self.classifier.eval()
        if self.frozen_backbone:
            self.detector.backbone.eval()
        return self


def _nms_of_each_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression in each class; returns the indices of the kept boxes, the highest score first."""
    if not len(boxes):
        return labels
    # moved apart, boxes of different classes do not overlap; with thousands of classes fp32 lacks the precision
    boxes = boxes.double()
    apart = labels[:, None] * (boxes.max() - boxes.min() + 1)
    return nms(boxes + apart, scores.double(), iou)


def _without_classes(sample: Any) -> Any:
    """Copy a sample with all labels set to 0."""
    copy = sample.new()
    # indices of classes have no meaning any more
    copy.set_metainfo({'annotated_labels': None})
    for name in ('gt_instances', 'ignored_instances'):
        if name in copy and 'labels' in copy.get(name):
            instances = copy.get(name).new()
            instances.labels = torch.zeros_like(instances.labels)
            copy.set_field(instances, name)
    return copy


def _to_original(sample: Any) -> None:
    """Rescale predicted boxes from the input to the original image, and clip them to it."""
    width_factor, height_factor = sample.get('scale_factor', (1.0, 1.0))
    height, width = sample.get('ori_shape', sample.img_shape)[:2]
    boxes = sample.pred_instances.bboxes
    boxes = boxes / boxes.new_tensor([width_factor, height_factor] * 2)
    limits = boxes.new_tensor([width, height, width, height])
    sample.pred_instances.bboxes = torch.minimum(boxes.clamp(min=0), limits)
