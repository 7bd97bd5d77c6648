"""A detector as one function from pictures to boxes: of a dense one the suppression of boxes is inside.

Shape legend: ``B`` pictures, ``A`` positions of a level times anchors, ``K`` classes, ``N`` candidates of a picture,
``M`` reported boxes.
"""

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoderForGLIP
from mmengine.config import ConfigDict
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import FindsObjects, dense_head
from florence_mm.ops.exported import kept_by_nms

NO_LABEL = -1


def exported_detector(model: nn.Module) -> nn.Module:
    """Make the function of a detector: of one whose queries find objects, or of a dense one.

    Raises:
        UsageError: it is none of both, see :func:`check_detector`.
    """
    return ExportedQueryDetector(model) if isinstance(dense_head(model), FindsObjects) else ExportedDetector(model)


def check_detector(model: nn.Module) -> None:
    """Check that a detector is one that :class:`ExportedDetector` can write down.

    Raises:
        UsageError: it has no single head on anchors, or another kind of suppression than plain NMS.
    """
    head, name = dense_head(model), type(model).__name__
    if not isinstance(head, BaseDenseHead):
        raise UsageError(
            f'{name} finds its boxes in several steps, which no exported file can hold; export a detector with one '
            'dense head, such as ATSS with DynamicHead, or DynamicDETR'
        )
    generator, coder = (vars(head).get(name) for name in ('prior_generator', 'bbox_coder'))
    coders = (DeltaXYWHBBoxCoder, DeltaXYWHBBoxCoderForGLIP)
    if type(generator) is not AnchorGenerator or type(coder) not in coders or not head.use_sigmoid_cls:
        raise UsageError(
            f'the head {type(head).__name__} has no anchors, no deltas of boxes or no sigmoid scores; export one that '
            'has, such as DynamicHead'
        )
    test = head.test_cfg or {}
    suppression = test.get('nms') or {}
    plain = suppression.get('type') == 'nms' and set(suppression) <= {'type', 'iou_threshold', 'class_agnostic'}
    if not plain or test.get('min_bbox_size', -1) > 0 or test.get('max_per_img', 0) < 1:
        raise UsageError(
            f'test_cfg of {name} is {dict(test)}; only nms of type "nms" with iou_threshold, min_bbox_size 0 and '
            'max_per_img from 1 can be exported, so change it with --cfg-options model.test_cfg...'
        )


class ExportedDetector(nn.Module):
    """Boxes of a batch of pictures, as mmdet's dense heads predict them, with sizes that may be free.

    Outputs are those of mmdeploy's detectors: ``dets (B, M, 5)``, corners in pixels of the input and score, by falling
    score, and ``labels (B, M)``. Rows behind the last box have score 0 and label :data:`NO_LABEL`.

    Args:
        model: an mmdet detector with a dense head (:func:`check_detector`).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_detector(model)
        self.model = model
        self.test_cfg = ConfigDict(model.bbox_head.test_cfg)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Detect objects.

        Args:
            images: ``(B, 3, H, W)``, normalised, padded behind their ends to a multiple of ``pad_size_divisor``.
            sizes: ``(B, 2)`` int64, height and width of each picture without padding, to which boxes are clipped.

        Returns:
            ``dets (B, M, 5)`` and ``labels (B, M)`` int64.
        """
        head, test = self.model.bbox_head, self.test_cfg
        outs = head(self.model.extract_feat(images))
        maps = [level.shape[2:] for level in outs[0]]
        priors = head.prior_generator.grid_priors(maps, dtype=images.dtype, device=images.device)
        factors = outs[2] if len(outs) > 2 else [None] * len(maps)
        levels = [self._candidates(*level) for level in zip(outs[0], outs[1], factors, priors, strict=True)]
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))  # (B, N, 4), (B, N) twice

        edge = 1 if isinstance(head.bbox_coder, DeltaXYWHBBoxCoderForGLIP) else 0
        if head.bbox_coder.clip_border:
            limits = (sizes - edge).flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # (B, 1, 4)
            boxes = torch.minimum(boxes.clamp(min=0), limits)
        if test.get('min_bbox_size', -1) >= 0:
            area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
            scores = torch.where(area, scores, 0)
        apart = boxes
        if not test.nms.get('class_agnostic', False):
            # boxes of different classes do not overlap (mmcv, batched_nms)
            apart = boxes + (labels.to(boxes.dtype) * (boxes.amax((1, 2))[:, None] + 1))[..., None]
        kept = kept_by_nms(apart, scores, test.nms.get('iou_threshold', 0.5))
        scores = torch.where(kept, scores, 0)
        scores, order = scores.topk(_fewer(test.max_per_img, scores.shape[1]), 1)  # (B, M)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        labels = torch.where(scores > 0, labels.gather(1, order), NO_LABEL)
        return torch.cat([boxes * (scores > 0)[..., None], scores[..., None]], -1), labels

    def _candidates(
        self, cls: Tensor, deltas: Tensor, factor: Tensor | None, priors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of position and class of a level: boxes, scores (0 below the threshold) and labels."""
        head, test = self.model.bbox_head, self.test_cfg
        classes = head.cls_out_channels
        scores = _by_anchor(cls, classes).sigmoid().flatten(1)  # (B, A K)
        deltas = _by_anchor(deltas, 4)  # (B, A, 4)
        count = test.get('nms_pre', -1)
        if count > 0:
            scores, picked = scores.topk(_fewer(count, scores.shape[1]), 1)  # (B, n)
        else:
            picked = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        place, labels = picked // classes, picked % classes  # (B, n)
        deltas = deltas.gather(1, place[..., None].expand(-1, -1, 4))
        boxes = head.bbox_coder.decode(priors[place].flatten(0, 1), deltas.flatten(0, 1)).view_as(deltas)
        valid = scores > test.get('score_thr', 0)
        if factor is not None:
            scores = scores * _by_anchor(factor, 1)[..., 0].sigmoid().gather(1, place)
        return boxes, torch.where(valid, scores, 0), labels


class ExportedQueryDetector(nn.Module):
    """Boxes of a batch of pictures, as queries find them, with sizes that may be free; all rows have a label.

    Args:
        model: a detector whose head :class:`~florence_mm.models.protocol.FindsObjects`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Detect objects, see :meth:`ExportedDetector.forward`."""
        boxes, scores, labels = dense_head(self.model).find_objects(self.model.extract_feat(images), sizes)
        return torch.cat([boxes, scores[..., None]], -1), labels


def _by_anchor(x: Tensor, channels: int) -> Tensor:
    """Reshape a map ``(B, anchors * channels, H, W)`` to ``(B, A, channels)``, positions in raster order."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, channels))


def _fewer(limit: int, count: int) -> int:
    """The smaller number, of which ``count`` may be free, and is a tensor in ``torch.jit.trace``."""
    return torch.sym_min(limit, count) if torch.compiler.is_exporting() else min(limit, int(count))
