"""Labels of ground truth, as heads of detectors read them: checked, as one class, and those annotated in an image."""

from collections.abc import Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor


def check_labels(labels: Tensor, meta: dict, num_classes: int) -> None:
    """Check that labels ``(N,)`` of an image are classes of a head.

    Raises:
        ValueError: one is not.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f'{meta.get("img_path", "an image")} has labels from {int(labels.min())} to {int(labels.max())}, but the '
            f'head has num_classes={num_classes} (0 to {num_classes - 1})'
        )


def as_one_class(gt_instances: Sequence[InstanceData]) -> list[InstanceData]:
    """The same boxes with label 0, for a class-agnostic head."""
    return [InstanceData(bboxes=gt.bboxes, labels=torch.zeros_like(gt.labels)) for gt in gt_instances]


def read_annotated_labels(meta: dict, num_classes: int) -> Tensor | None:
    """Sorted indices of the classes annotated in an image, from ``annotated_labels`` of its metainfo; None: all are."""
    labels = meta.get('annotated_labels')
    if labels is None or num_classes == 1:
        return None
    labels = torch.as_tensor(labels, dtype=torch.int64).unique()
    return None if len(labels) == num_classes else labels
