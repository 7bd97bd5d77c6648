"""Dynamic decoder of Dynamic DETR (ICCV 2021, section 3.3), with DETR's losses at each stage.

Each query has an embedding and a box. Before a stage the features of the boxes are pooled; the stage
(:mod:`~florence_mm.models.layers.dynamic_decoder`) refines embedding, box and class.

Shape legend: ``B`` images, ``Q`` queries of an image, ``C`` channels, ``D`` channels after the filter, ``P`` bins along
a side of a region, ``K`` classes, ``S`` stages. Boxes are centre x, centre y, width, height, as parts of the image.
"""

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.models.layers.transformer.utils import coordinate_to_encoding
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.layers.dynamic_decoder import DynamicDecoderStage, spread_boxes
from florence_mm.ops.precision import at_least_float32
from florence_mm.ops.pyramid_roi_align import pyramid_roi_align
from florence_mm.registry import MODELS

from .detection_labels import as_one_class, check_labels, read_annotated_labels

_NEVER = -1e4  # a logit without loss and gradient as a negative


def _train_cfg() -> dict:
    costs = [
        dict(type='mmdet.FocalLossCost', weight=2.0),
        dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
    ]
    return dict(assigner=dict(type='mmdet.HungarianAssigner', match_costs=costs))


@MODELS.register_module()
class DynamicDETRHead(DETRHead):
    """Dynamic decoder, to be used as the head of :class:`DynamicDETR`; it reads the pyramid of the dynamic encoder.

    The queries are learned: an embedding, and a box that begins as a square of side ``box_size`` on a grid over the
    image. Gradients of a stage do not reach the boxes of the stage before it. Matching and losses are mmdet's, for each
    stage: Hungarian matching, sigmoid focal loss, L1 and GIoU loss. An image with more objects than queries trains as
    many of them as there are queries.

    ``num_classes=1`` makes the head class-agnostic. ``annotated_labels`` in the metainfo of a sample restricts the
    negatives to these classes and those of its boxes, as in :class:`DynamicHead`.

    Parameters: ``query_embedding``, ``query_boxes`` (logits), ``box_encoding``, ``stages.s.{query_key, value, output,
    filter.{weights, norm, project}, mlp, norms, classify, refine}``.

    Args:
        num_classes: ``K``.
        in_channels: ``C``, channels of the pyramid and of queries, a multiple of 8 and of ``num_heads``.
        num_queries: ``Q``.
        num_stages: ``S``.
        num_heads: heads of self-attention.
        filter_channels: ``D``, output channels of the dynamic convolution.
        feedforward_channels: hidden channels of the MLP.
        num_reg_fcs: hidden layers of the box regression.
        strides: pixels of the image per pixel of each level.
        roi_size: ``P``.
        sampling_ratio: samples a bin and axis of RoI align.
        finest_scale: regions with a side below twice this many pixels are pooled from the finest level, see
            :func:`~florence_mm.ops.pyramid_roi_align.region_levels`; None: 14 of its strides, which is FPN's rule.
        box_size: side of the first boxes, as a part of the image.
        drop_rate: dropout in the stages.
        with_cp: recompute stages in the backward pass instead of keeping their activations.
        loss_cls, loss_bbox, loss_iou, train_cfg, test_cfg: see ``mmdet.DETRHead``; by default focal loss of weight 2,
            L1 of 5, GIoU of 2, the same as costs of the matching, and the best 100 pairs of query and class.
        init_cfg: see mmengine.

    Raises:
        ValueError: a number that does not fit the others, or ``loss_cls`` is not a sigmoid loss.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        num_queries: int = 300,
        num_stages: int = 6,
        num_heads: int = 8,
        filter_channels: int = 32,
        feedforward_channels: int = 1024,
        num_reg_fcs: int = 1,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        roi_size: int = 7,
        sampling_ratio: int = 2,
        finest_scale: float | None = None,
        box_size: float = 0.25,
        drop_rate: float = 0.0,
        with_cp: bool = False,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        loss_iou: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if in_channels % 8 or in_channels % num_heads:
            raise ValueError(f'in_channels={in_channels}; give a multiple of 8 and of num_heads={num_heads}')
        if num_queries < 1 or num_stages < 1 or not 0 < box_size < 1:
            raise ValueError(
                f'num_queries={num_queries}, num_stages={num_stages}, box_size={box_size}; give at least one query and '
                'one stage, and a side between 0 and 1'
            )
        test_cfg = dict(test_cfg or dict(max_per_img=100))
        test_cfg['max_per_img'] = min(test_cfg.get('max_per_img', num_queries), num_queries * num_classes)
        super().__init__(
            num_classes,
            embed_dims=in_channels,
            num_reg_fcs=num_reg_fcs,
            sync_cls_avg_factor=True,
            loss_cls=loss_cls or dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=2.0),
            loss_bbox=loss_bbox or dict(type='mmdet.L1Loss', loss_weight=5.0),
            loss_iou=loss_iou or dict(type='mmdet.GIoULoss', loss_weight=2.0),
            train_cfg=train_cfg or _train_cfg(),
            test_cfg=test_cfg,
            init_cfg=init_cfg,
        )
        if not self.loss_cls.use_sigmoid:
            raise ValueError(
                f'loss_cls is {type(self.loss_cls).__name__} with softmax; give a sigmoid loss, such as mmdet.FocalLoss'
            )
        self.num_queries, self.with_cp = num_queries, with_cp
        self.strides, self.roi_size, self.sampling_ratio = tuple(strides), roi_size, sampling_ratio
        self.finest_scale = finest_scale or 14 * strides[0]
        self.query_embedding = nn.Embedding(num_queries, in_channels)
        self.query_boxes = nn.Embedding.from_pretrained(spread_boxes(num_queries, box_size).logit(), freeze=False)
        self.box_encoding = nn.Linear(in_channels, in_channels)
        self.stages = nn.ModuleList(
            DynamicDecoderStage(
                in_channels,
                num_classes,
                num_heads,
                filter_channels,
                feedforward_channels,
                roi_size,
                num_reg_fcs,
                drop_rate,
            )
            for _ in range(num_stages)
        )

    def _init_layers(self) -> None:
        """Make no layers of DETR's: the stages have their own."""

    def forward(self, x: Sequence[Tensor], image_sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes at all stages.

        Args:
            x: the pyramid, maps ``(B, C, H_l, W_l)``.
            image_sizes: ``(B, 2)``, height and width of each image without padding; None: all of the finest map.

        Returns:
            class logits ``(S, B, Q, K)`` and boxes ``(S, B, Q, 4)``, at least float32.
        """
        batch = x[0].shape[0]  # its length would be a number in an exported file
        if image_sizes is None:
            size = [side * self.strides[0] for side in x[0].shape[2:]]
            image_sizes = x[0].new_tensor(size, dtype=torch.float32).expand(batch, 2)
        factors = image_sizes.to(x[0].device).flip(1).repeat(1, 2)[:, None]  # (B, 1, 4)
        query = self.query_embedding.weight.expand(batch, -1, -1)
        boxes = at_least_float32(self.query_boxes.weight).sigmoid().expand(batch, -1, -1)
        all_logits, all_boxes = [], []
        for stage in self.stages:
            if self.with_cp and torch.is_grad_enabled():
                query, boxes, logits = checkpoint(self._run, stage, query, boxes, factors, *x, use_reentrant=False)
            else:
                query, boxes, logits = self._run(stage, query, boxes, factors, *x)
            all_logits.append(logits)
            all_boxes.append(boxes)
            boxes = boxes.detach()
        return torch.stack(all_logits), torch.stack(all_boxes)

    def _run(
        self, stage: DynamicDecoderStage, query: Tensor, boxes: Tensor, factors: Tensor, *x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one stage on the regions of its boxes."""
        corners = bbox_cxcywh_to_xyxy(boxes) * factors
        regions = pyramid_roi_align(x, corners, self.strides, self.roi_size, self.sampling_ratio, self.finest_scale)
        place = coordinate_to_encoding(boxes.detach(), self.embed_dims // 4).to(query.dtype)
        return stage(query, boxes, self.box_encoding(place), regions)

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            x: the pyramid, maps ``(B, C, H_l, W_l)``.
            batch_data_samples: B samples with ``gt_instances`` (``bboxes``, ``labels``), and in the metainfo
                ``img_shape`` and optionally ``annotated_labels``.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last stage, ``ds.loss_cls`` and so on of stage s.

        Raises:
            ValueError: a label is not one of the head's classes, or a box is not finite.
        """
        return self.loss_and_predict(x, batch_data_samples, with_predictions=False)[0]

    def loss_and_predict(
        self, x: Sequence[Tensor], batch_data_samples: SampleList, with_predictions: bool = True
    ) -> tuple[dict[str, Tensor], InstanceList]:
        """Compute the losses and the predictions from the same features."""
        gt_instances, _, metas = unpack_gt_instances(batch_data_samples)
        for gt, meta in zip(gt_instances, metas, strict=True):
            if self.num_classes > 1:
                check_labels(gt.labels, meta, self.num_classes)
            if not gt.bboxes.isfinite().all():
                raise ValueError(f'{meta.get("img_path", "an image")} has boxes that are not finite; correct them')
        if self.num_classes == 1:
            gt_instances = as_one_class(gt_instances)
        logits, boxes = self(x, _image_sizes(metas))
        if not boxes.isfinite().all():
            raise ValueError('boxes of the decoder are not finite; the training diverged, lower the learning rate')
        # of one type with the predictions, as mmdet's costs need
        gt_instances = [InstanceData(bboxes=gt.bboxes.to(boxes.dtype), labels=gt.labels) for gt in gt_instances]
        losses = self.loss_by_feat(self._only_annotated(logits, gt_instances, metas), boxes, gt_instances, metas)
        losses = {name: loss.sum() for name, loss in losses.items()}  # mmdet's have one axis, of one number
        return losses, self.predict_by_feat(logits, boxes, metas) if with_predictions else []

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = True) -> InstanceList:
        """Predict the boxes of each image, by falling score; no suppression of boxes is needed.

        Args:
            x: the pyramid, maps ``(B, C, H_l, W_l)``.
            batch_data_samples: B samples with ``img_shape`` and ``scale_factor`` in the metainfo.
            rescale: give boxes in pixels of the original image.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(*self(x, _image_sizes(metas)), metas, rescale)

    def find_objects(self, x: Sequence[Tensor], image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the objects of B images, as :meth:`predict` does, in tensors.

        Args:
            x: the pyramid, maps ``(B, C, H_l, W_l)``.
            image_sizes: ``(B, 2)``, height and width of each image without padding.

        Returns:
            boxes ``(B, M, 4)``, corners in pixels within the image, scores ``(B, M)``, falling, and labels ``(B, M)``.
        """
        logits, boxes = (every[-1] for every in self(x, image_sizes))  # (B, Q, K) and (B, Q, 4)
        scores, best = logits.sigmoid().flatten(1).topk(self.test_cfg['max_per_img'], 1)
        factors = image_sizes.to(boxes).flip(1).repeat(1, 2)[:, None]  # (B, 1, 4)
        corners = torch.minimum((bbox_cxcywh_to_xyxy(boxes) * factors).clamp(min=0), factors)
        query, labels = best // self.num_classes, best % self.num_classes
        return corners.gather(1, query[..., None].expand(-1, -1, 4)), scores, labels

    def _only_annotated(self, logits: Tensor, gt_instances: InstanceList, metas: list[dict]) -> Tensor:
        """Logits ``(S, B, Q, K)`` in which classes that are not annotated in an image have no loss and no gradient."""
        unknown = torch.zeros(len(metas), self.num_classes, dtype=torch.bool)
        for row, gt, meta in zip(unknown, gt_instances, metas, strict=True):
            annotated = read_annotated_labels(meta, self.num_classes)
            if annotated is not None:
                row[:] = True
                row[annotated] = False
                row[gt.labels.cpu()] = False
        return logits.masked_fill(unknown.to(logits.device)[:, None], _NEVER) if unknown.any() else logits


def _image_sizes(metas: list[dict]) -> Tensor:
    """Height and width of the images without padding, ``(B, 2)``."""
    return torch.tensor([meta['img_shape'][:2] for meta in metas], dtype=torch.float32).reshape(-1, 2)
