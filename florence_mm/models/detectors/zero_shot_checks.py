"""Checks of the options and parts of a :class:`ZeroShotDetector`, made when it is built."""

from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.utils.numbers import is_whole


def check_options(model: Any) -> None:
    """Check that options are in range.

    Raises:
        ValueError: an option is out of range; the message names it and its range.
    """
    if model.region not in ('crop', 'feature'):
        raise ValueError(f"region is {model.region!r}; use 'crop' or 'feature'")
    if not 0 <= model.proposal_weight <= 1:
        raise ValueError(f'proposal_weight is {model.proposal_weight}; give 0 (class alone) to 1 (proposal alone)')
    if not 0 <= model.score_thr < 1:
        raise ValueError(f'score_thr is {model.score_thr}; give 0 to below 1, as scores are not above 1')
    if not 0 <= model.nms_iou <= 1:
        raise ValueError(f'nms_iou is {model.nms_iou}; give 0 (boxes must not overlap) to 1 (all are kept)')
    if not model.context or min(model.context) <= 0:
        raise ValueError(f'context is {model.context}; give one or more factors above 0')
    for name in ('classes_per_box', 'max_per_img', 'regions_at_once'):
        if getattr(model, name) < 1:
            raise ValueError(f'{name} is {getattr(model, name)}; give at least 1')


def height_and_width(crop_size: Any) -> tuple[int, int]:
    """Convert a crop size, a side or (height, width), to (height, width).

    Raises:
        ValueError: it is neither, or below 1 pixel.
    """
    sides = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or any(not _is_side(side) for side in sides):
        raise ValueError(f'crop_size is {crop_size!r}; give a side or (height, width) in whole pixels, at least 1')
    return tuple(sides)


def _is_side(value: Any) -> bool:
    return is_whole(value) and value >= 1


def check_parts(model: Any) -> None:
    """Check that the detector is class-agnostic and that the classifier fits the detector's backbone.

    Raises:
        ValueError: they do not fit; the message says what to change.
    """
    # of a one-stage detector, of a two-stage one, or a list of heads of a cascade
    heads = getattr(getattr(model.detector, 'roi_head', model.detector), 'bbox_head', None)
    for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
        if getattr(head, 'num_classes', 1) != 1:
            raise ValueError(f"the detector's head has {head.num_classes} classes; proposals need num_classes=1")
    if model.shares_backbone:
        _check_shared_backbone(model)
    elif model.region == 'feature':
        raise ValueError(
            "region='feature' reads the classifier's features from the detector's backbone; leave image_encoder "
            "out of the classifier's config, or use region='crop'"
        )


def _check_shared_backbone(model: Any) -> None:
    if not model.frozen_backbone:
        raise ValueError('a backbone shared with the classifier must not learn; set frozen_backbone=True')
    backbone = model.detector.backbone
    stages, last = getattr(backbone, 'num_layers', None), getattr(backbone, 'out_indices', (None,))[-1]
    if None not in (stages, last) and last != stages - 1:
        raise ValueError(
            f'the shared backbone ends at stage {last} of out_indices, but the classifier was trained on its last, '
            f'{stages - 1}; add it to out_indices'
        )
    ours, theirs = mean_and_std(model.data_preprocessor), mean_and_std(model.classifier.data_preprocessor)
    if ours[0].is_meta:
        return  # tensors of a model built on the meta device have no values
    if any(not torch.allclose(a.float(), b.float(), atol=1e-3) for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(
            'the backbone is shared, but the detector normalises images by mean and std '
            f'{[part.flatten().tolist() for part in ours]}, the classifier by '
            f'{[part.flatten().tolist() for part in theirs]}; give both data preprocessors the same numbers'
        )


def mean_and_std(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``(3, 1, 1)`` of a preprocessor; 0 and 1 if it does not normalise."""
    mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
    return (torch.zeros(3, 1, 1), torch.ones(3, 1, 1)) if mean is None else (mean, std)
