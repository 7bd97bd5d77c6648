"""Protocols by which code outside ``models`` uses a whole model of any family, ours, mmdet's or mmaction2's.

Such code names these protocols and functions, never the class or an attribute of one family.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.ops.detected_regions import pool_whole
from florence_mm.ops.precision import at_least_float32

#: Attributes of mmdet's detectors and mmaction2's recognizers that hold the classification head.
_CLASS_HEADS = {'bbox_head': 'detector', 'cls_head': 'recognizer'}


class ClassHead(NamedTuple):
    """The classification head of a model.

    Attributes:
        name: its name in the model's config.
        owner: kind of the model, ``'detector'`` or ``'recognizer'``, for messages.
        num_classes: number of its classes; None if the head has no such attribute.
    """

    name: str
    owner: str
    num_classes: int | None


@runtime_checkable
class ZeroShotModel(Protocol):
    """A model whose classes are set by name, such as :class:`UniCL` and :class:`ZeroShotDetector`.

    Inferencers also read ``class_names``, the names in the order of the labels, empty until they are set.
    """

    def set_classes(self, names: str | Sequence[str], templates: str | Sequence[str] | None = None) -> None:
        """Set the classes to predict; ``templates`` are prompts with one ``{}``, None uses the model's."""


@runtime_checkable
class TwoTowerModel(ZeroShotModel, Protocol):
    """A model that embeds images and texts in one space, such as :class:`UniCL`.

    It has the attributes ``image_encoder`` and ``tokenizer``. Shapes: ``B`` images or texts, ``D`` channels, ``K``
    classes.
    """

    def extract_image_feat(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(B, 3, H, W)`` or clips ``(B, 3, T, H, W)`` to ``(B, D)``, L2-normalised."""

    def extract_text_feat(self, texts: Sequence[str]) -> Tensor:
        """Encode B texts to ``(B, D)``, L2-normalised."""

    def class_logits(self, image_feat: Tensor) -> Tensor:
        """Compute the logits ``(B, K)`` of the set classes from image features ``(B, D)``."""


@runtime_checkable
class LimitsScalars(Protocol):
    """A module that keeps 0-d parameters in a range while it trains, such as the temperature of :class:`UniCL`.

    It does so in its loss; of a sharded model, whose loss sees a gathered copy, the owner of the parts must do it too.
    """

    def scalar_limits(self) -> dict[str, tuple[float, float]]:
        """The least and the largest value of each limited parameter, by its name."""


@runtime_checkable
class FollowsWeights(Protocol):
    """A module with weights that follow others, such as the momentum model of :class:`FusionITCHead`.

    It updates them in its loss; of a sharded model, whose loss sees gathered copies, the owner of the parts must have
    it done before the forward pass.
    """

    def follow_weights(self) -> None:
        """Update them for the next training step."""


@runtime_checkable
class CountsSteps(Protocol):
    """A module that counts training steps, such as :class:`FusionITCHead`, whose soft targets grow with them."""

    def restart(self) -> None:
        """Count from 0 again, for a new training that begins with loaded weights."""


@runtime_checkable
class PoolsImages(Protocol):
    """A model with one vector an image before any projection, such as :class:`UniCL`: what linear probes classify."""

    def pool_images(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(B, 3, H, W)`` to ``(B, C)``."""


@runtime_checkable
class ClassifiesByText(PoolsImages, Protocol):
    """A model that compares pooled images with texts of classes, such as :class:`UniCL`.

    The cosine of an image and a class, times the model's temperature, is the logit of that class.
    """

    def project_images(self, pooled: Tensor) -> Tensor:
        """Project pooled images ``(B, C)`` to ``(B, D)``, L2-normalised."""

    def encode_classes(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Encode K classes to ``(K, D)``, L2-normalised: the mean of their prompts' features."""


@runtime_checkable
class ScoresLabels(Protocol):
    """A classifier of images with fixed classes, such as :class:`UniCLClassifier`; mode ``'tensor'`` gives logits."""

    def score_labels(self, logits: Tensor) -> Tensor:
        """Compute the scores ``(B, K)`` that ``predict`` reports from logits ``(B, K)``."""


@runtime_checkable
class StagedBackbone(Protocol):
    """A backbone whose stages are sequences of blocks on tokens, such as :class:`CoSwin` and :class:`VideoCoSwin`."""

    def last_blocks(self) -> list[nn.Module]:
        """The last block of each stage; its input is tokens ``(B, L, C)`` and the size of their map."""


@runtime_checkable
class NamesNoDecay(Protocol):
    """A module that lists its parameters without weight decay (timm's convention)."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters, relative to this module."""


@runtime_checkable
class WholeBatchLoss(Protocol):
    """A model whose loss may compare the samples of a batch with each other, such as :class:`UniCL`.

    The mean of such losses over small batches is not the loss of the whole batch.
    """

    def whole_batch_advice(self) -> str | None:
        """What to set instead of gradient accumulation, as an order; None if the loss is one of each sample."""


@runtime_checkable
class FindsObjects(Protocol):
    """A head of detectors whose queries find objects, so that no suppression follows, as :class:`DynamicDETRHead`."""

    def find_objects(self, x: Sequence[Tensor], image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the objects of B images.

        Args:
            x: the pyramid, maps ``(B, C, H_l, W_l)``.
            image_sizes: ``(B, 2)``, height and width of each image without padding.

        Returns:
            boxes ``(B, M, 4)``, corners in pixels within the image, scores ``(B, M)``, falling, and labels ``(B, M)``.
        """


@runtime_checkable
class ResizesBatches(Protocol):
    """A data preprocessor that resizes the images of training batches, as :class:`ImageTextDataPreprocessor`."""

    def set_train_size(self, size: int | None) -> None:
        """Set the side of the square that they are resized to; None: they keep their size."""


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside mmengine's wrappers for distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@torch.no_grad()
def embed_images(model: nn.Module, inputs: Tensor) -> Tensor | None:
    """Embed preprocessed images or clips with a two-tower model, or a classifier of mmpretrain.

    Args:
        model: without wrappers, see :func:`unwrap_model`.
        inputs: ``(B, 3, H, W)``, or for a video encoder clips.

    Returns:
        ``(B, D)``, L2-normalised, at least float32: the embedding of a two-tower model; of a classifier the features
        before its head, averaged over positions. None for a model that gives neither.
    """
    if isinstance(model, TwoTowerModel):
        return model.extract_image_feat(inputs)
    if not callable(getattr(model, 'extract_feat', None)):
        return None
    maps = model.extract_feat(inputs)
    x = maps[-1] if isinstance(maps, tuple | list) else maps  # (B, C) or (B, C, H, W)
    x = x.flatten(2).mean(2) if x.ndim > 2 else x
    return F.normalize(at_least_float32(x), dim=-1)


def label_scores(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Find how a classifier of images turns its logits ``(B, K)``, the output of mode ``'tensor'``, into scores.

    Returns:
        softmax, or the sigmoid of mmpretrain's heads for several labels an image; None if the model is no classifier,
        or its head predicts in another way.
    """
    if isinstance(model, ScoresLabels):
        return model.score_labels
    from mmpretrain.models import ClsHead, ImageClassifier, MultiLabelClsHead

    if not isinstance(model, ImageClassifier):
        return None
    head = type(model.head)
    for known, function in ((ClsHead, partial(torch.softmax, dim=1)), (MultiLabelClsHead, torch.sigmoid)):
        same = (getattr(head, name, None) is getattr(known, name) for name in ('predict', '_get_predictions'))
        if issubclass(head, known) and all(same):
            return function
    return None


def dense_head(model: nn.Module) -> nn.Module | None:
    """Find the head of a detector that predicts boxes in one step from its maps; None if the model has none."""
    return (
        None if hasattr(model, 'roi_head') or not hasattr(model, 'extract_feat') else getattr(model, 'bbox_head', None)
    )


def finds_boxes(model: nn.Module) -> bool:
    """Whether a model is a detector, of whatever steps."""
    return any(hasattr(model, name) for name in ('bbox_head', 'rpn_head', 'roi_head', 'detector'))


def region_maps(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Compute the maps from which regions are pooled, finest first.

    Args:
        model: a detector of mmdet or a zero-shot detector, whose maps are those of its neck; or a model with an image
            tower, or a backbone, of which the last map is taken.
        inputs: ``(B, 3, H, W)``, preprocessed.

    Raises:
        ValueError: the model has no maps.
    """
    model = getattr(unwrap_model(model), 'detector', unwrap_model(model))
    if hasattr(model, 'extract_feat') and not hasattr(model, 'image_encoder'):
        maps = model.extract_feat(inputs)
        maps = list(maps) if isinstance(maps, tuple | list) else [maps]
    else:
        maps = getattr(model, 'image_encoder', model)(inputs)
        maps = [maps[-1] if isinstance(maps, tuple | list) else maps]
    if any(not isinstance(one, Tensor) or one.ndim != 4 for one in maps):
        raise ValueError(f'{type(model).__name__} gives no maps (B, C, H, W) to pool regions from; give a detector')
    return maps


def pool_crops(model: nn.Module, inputs: Tensor, side: int) -> Tensor:
    """Encode crops to one vector each, float32.

    Args:
        model: a model that pools images itself, such as :class:`UniCL`; otherwise see :func:`region_maps`, of whose
            maps the one that suits the crop is averaged.
        inputs: ``(B, 3, H, W)``, preprocessed.
        side: side of the crops in pixels; what is right of or below them is padding.

    Returns:
        ``(B, C)``.

    Raises:
        ValueError: the model has neither.
    """
    if isinstance(unwrap_model(model), PoolsImages):
        return unwrap_model(model).pool_images(inputs).float()
    return pool_whole(region_maps(model, inputs), tuple(inputs.shape[-2:]), side)


def projects_texts(model: nn.Module) -> bool:
    """Whether a model has a ``text_encoder`` from ids to ``(B, C)`` and a ``text_projection`` of its output."""
    return hasattr(model, 'text_encoder') and hasattr(model, 'text_projection')


def recognizes_clips(model: nn.Module) -> bool:
    """Whether a model is a recognizer of mmaction2 whose backbone takes clips, not single frames."""
    from mmaction.models import Recognizer3D

    return isinstance(model, Recognizer3D)


def class_head(model: nn.Module) -> ClassHead | None:
    """Find the classification head of a detector or recognizer; None if the model has none.

    Args:
        model: without wrappers, see :func:`unwrap_model`.
    """
    for name, owner in _CLASS_HEADS.items():
        head = getattr(model, name, None)
        if head is not None:
            return ClassHead(name, owner, getattr(head, 'num_classes', None))
    return None
