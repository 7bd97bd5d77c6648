"""Dynamic Head (arXiv 2106.08322): a tower of blocks, then the predictions of ATSS (arXiv 1912.02424).

In the public code the tower belongs to the backbone, and the head is 1x1 convolutions; here both are one dense head of
mmdet. Shapes: ``B`` images, ``A`` anchors of all levels (one per position), ``C`` channels, ``K`` classes.
"""

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.losses import FocalLoss
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.utils import InstanceList, reduce_mean
from torch import Tensor, nn

from florence_mm.models.layers.dyhead_block import DyHeadBlock, run_blocks
from florence_mm.ops.linear_focal_loss import linear_focal_loss
from florence_mm.registry import MODELS

from .detection_labels import as_one_class, check_labels, read_annotated_labels

_NORMAL = dict(type='Normal', std=0.01)


def _anchors() -> dict:
    # one square at the centre of each cell, with a side of 8 strides
    return dict(
        type='mmdet.AnchorGenerator',
        ratios=[1.0],
        octave_base_scale=8,
        scales_per_octave=1,
        strides=[8, 16, 32, 64, 128],
        center_offset=0.5,
    )


def _box_coder() -> dict:
    return dict(type='mmdet.DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])


@MODELS.register_module()
class DynamicHead(ATSSHead):
    """Dense head for ``mmdet.ATSS``: a tower of DyHead blocks and ATSS's predictions and losses.

    The defaults are those of DynamicHead ``configs/dyhead_*_atss_*``: predictions by 1x1 convolutions, one anchor of 8
    strides per position, a learned scale of the boxes per level, focal loss, GIoU loss of weight 2 weighted by
    centerness, binary cross-entropy for centerness. At test time mmdet multiplies class and centerness probabilities
    (without a square root), as the public code does; if a level has more than ``nms_pre`` candidates, mmdet keeps the
    best by class probability, the public code by the product.

    ``num_classes=1`` makes the head class-agnostic: all labels count as class 0.

    **Federated data.** Data sets that are trained on together annotate different classes. The metainfo of a sample may
    have ``annotated_labels``, the indices of the classes annotated in the image. Only these classes give negatives;
    positives always count. Missing or ``None`` means all classes. A class-agnostic head ignores it.

    The training loss never holds the logits of all anchors in memory (see
    :func:`~florence_mm.ops.linear_focal_loss.linear_focal_loss`), so that 25,190 classes need little more memory than
    80. ``loss_by_feat``, mmdet's method that takes such logits, raises on ``annotated_labels``.

    Parameters: ``blocks.n.*`` (see :class:`DyHeadBlock`), ``atss_cls``, ``atss_reg``, ``atss_centerness``,
    ``scales.l.scale``.

    Args:
        num_classes: ``K``.
        in_channels: channels of the input pyramid.
        feat_channels: ``C``, a multiple of 16.
        num_blocks: number of DyHead blocks; 0: predictions from the pyramid itself.
        offset_mode: ``'resized'``, or ``'legacy'`` for public weights, see :class:`DyHeadBlock`.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        anchor_generator, bbox_coder, loss_cls, loss_bbox, loss_centerness, train_cfg, test_cfg: see ``mmdet.ATSSHead``.
        init_cfg: see mmengine; by default the prediction layers are normal with standard deviation 0.01 and zero bias,
            the bias of the class logits such that probabilities are 0.01.

    Raises:
        ValueError: ``loss_cls`` is not mmdet's sigmoid ``FocalLoss`` on logits.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        feat_channels: int = 256,
        num_blocks: int = 6,
        offset_mode: str = 'resized',
        with_cp: bool = False,
        anchor_generator: dict | None = None,
        bbox_coder: dict | None = None,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        loss_centerness: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        predictions = [
            dict(_NORMAL, name='atss_cls', bias_prob=0.01),
            dict(_NORMAL, name='atss_reg'),
            dict(_NORMAL, name='atss_centerness'),
        ]
        super().__init__(
            num_classes,
            in_channels,
            pred_kernel_size=1,
            stacked_convs=0,
            feat_channels=feat_channels,
            anchor_generator=anchor_generator or _anchors(),
            bbox_coder=bbox_coder or _box_coder(),
            loss_cls=loss_cls or dict(type='mmdet.FocalLoss', use_sigmoid=True),
            loss_bbox=loss_bbox or dict(type='mmdet.GIoULoss', loss_weight=2.0),
            loss_centerness=loss_centerness or dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            # `layer=[]`: the blocks keep their own initialisation
            init_cfg=init_cfg or dict(_NORMAL, layer=[], override=predictions),
        )
        if not isinstance(self.loss_cls, FocalLoss) or self.loss_cls.activated or self.loss_cls.reduction != 'mean':
            raise ValueError(
                f'loss_cls is {type(self.loss_cls).__name__}; DynamicHead computes the sigmoid focal loss in chunks, '
                f'give type="mmdet.FocalLoss" with its alpha, gamma and loss_weight'
            )
        widths = [in_channels] + [feat_channels] * num_blocks
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(DyHeadBlock(feat_channels, width, offset_mode) for width in widths[:-1])

    def tower(self, x: tuple[Tensor, ...]) -> list[Tensor]:
        """Apply the blocks to the pyramid, ``(B, in_channels, H_l, W_l)`` to ``(B, C, H_l, W_l)``."""
        return run_blocks(self.blocks, x, self.with_cp)

    def forward(self, x: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Predict class logits, box deltas and centerness logits, ``(B, K | 4 | 1, H_l, W_l)`` per level."""
        return super().forward(self.tower(x))

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            x: the pyramid, maps ``(B, in_channels, H_l, W_l)``.
            batch_data_samples: B samples with ``gt_instances`` (``bboxes``, ``labels``), and in the metainfo
                ``img_shape``, ``pad_shape`` and optionally ``annotated_labels``.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_centerness``, scalars.

        Raises:
            ValueError: a label or an annotated class is not one of the head's classes.
        """
        return self._loss_of_tower(self.tower(x), batch_data_samples)

    def loss_and_predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, proposal_cfg: dict | None = None
    ) -> tuple[dict[str, Tensor], InstanceList]:
        """Compute the losses and the predictions from the same features, for two-stage detectors."""
        feats = self.tower(x)
        metas = [sample.metainfo for sample in batch_data_samples]
        with torch.no_grad():
            outs = super().forward(feats)
        predictions = self.predict_by_feat(*outs, batch_img_metas=metas, cfg=proposal_cfg)
        return self._loss_of_tower(feats, batch_data_samples), predictions

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: InstanceList | None = None,
    ) -> dict[str, list[Tensor]]:
        """Compute mmdet's losses from given predictions, one map per level; all classes count as annotated.

        Raises:
            ValueError: an image has ``annotated_labels``.
        """
        if self.num_classes > 1 and any(meta.get('annotated_labels') is not None for meta in batch_img_metas):
            raise ValueError('loss_by_feat cannot leave out classes, but an image has annotated_labels; call loss')
        return super().loss_by_feat(
            cls_scores, bbox_preds, centernesses, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )

    def _loss_of_tower(self, feats: list[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        gt_instances, gt_ignored, metas = unpack_gt_instances(batch_data_samples)
        if self.num_classes == 1:
            gt_instances = as_one_class(gt_instances)
        anchors, valid = self.get_anchors([feat.shape[2:] for feat in feats], metas, feats[0].device)
        anchors, labels, label_weights, targets, _, num_positive = self.get_targets(
            anchors, valid, gt_instances, metas, gt_ignored
        )
        anchors, labels, label_weights, targets = (
            torch.cat(levels, 1) for levels in (anchors, labels, label_weights, targets)
        )  # (B, A, 4), (B, A), (B, A), (B, A, 4)
        known = self._read_labels(labels, gt_instances, metas)  # (B, A)
        num_positive = reduce_mean(feats[0].new_full((), num_positive, dtype=torch.float))

        cls_feat = _by_anchor(feats)  # (B, A, C)
        deltas = _by_anchor([scale(self.atss_reg(f)).float() for f, scale in zip(feats, self.scales, strict=True)])
        centerness = _by_anchor([self.atss_centerness(feat) for feat in feats])[..., 0]  # (B, A)

        loss_cls = self._classification_loss(cls_feat, known, label_weights, metas)
        loss_cls = self.loss_cls.loss_weight * loss_cls / (num_positive + torch.finfo(torch.float32).eps)
        positive = (known.flatten() < self.num_classes).nonzero().squeeze(1)  # (P,) of the B A anchors
        place = positive.to(deltas.device, non_blocking=True)
        anchors, targets = (x.flatten(0, 1).index_select(0, place) for x in (anchors, targets))  # (P, 4)
        if len(positive):
            inner = self.centerness_target(anchors, targets)  # (P,)
            boxes = self.bbox_coder.decode(anchors, deltas.flatten(0, 1).index_select(0, place))
            loss_bbox = self.loss_bbox(boxes, targets, weight=inner, avg_factor=1.0)
            centerness = centerness.flatten().index_select(0, place)  # (P,)
            loss_centerness = self.loss_centerness(centerness, inner, avg_factor=num_positive)
        else:  # every parameter gets a gradient on every process
            inner, loss_bbox, loss_centerness = targets.sum(), deltas.sum() * 0, centerness.sum() * 0
        loss_bbox = loss_bbox / reduce_mean(inner.sum()).clamp(min=1)
        return dict(loss_cls=loss_cls, loss_bbox=loss_bbox, loss_centerness=loss_centerness)

    def _classification_loss(self, feat: Tensor, labels: Tensor, label_weights: Tensor, metas: list[dict]) -> Tensor:
        """Summed focal loss; images in which all classes are annotated are computed together."""
        weight, bias = self.atss_cls.weight.flatten(1), self.atss_cls.bias  # (K, C), (K,)
        annotated = [read_annotated_labels(meta, self.num_classes) for meta in metas]
        groups: list[tuple[list[int], Tensor | None]] = [([i], a) for i, a in enumerate(annotated) if a is not None]
        if len(groups) < len(metas):
            groups.insert(0, ([i for i, a in enumerate(annotated) if a is None], None))
        return sum(
            linear_focal_loss(
                _of_images(feat, images).flatten(0, 1),
                weight,
                bias,
                _of_images(labels, images).flatten(),
                _of_images(label_weights, images).flatten(),
                self.loss_cls.alpha,
                self.loss_cls.gamma,
                annotated_labels,
            )
            for images, annotated_labels in groups
        )

    def _read_labels(self, labels: Tensor, gt_instances: InstanceList, metas: list[dict]) -> Tensor:
        """Copy the labels of anchors ``(B, A)`` to the CPU, with those of ground truth, which are checked.

        Everything that depends on their values is found there, so that a GPU is waited for once.

        Raises:
            ValueError: a label of ground truth is not one of the head's classes.
        """
        given = [gt.labels for gt in gt_instances]
        read = torch.cat([labels.flatten(), *given]).cpu()
        anchors, *given = read.split([labels.numel(), *map(len, given)])
        for own, meta in zip(given, metas, strict=True):
            check_labels(own, meta, self.num_classes)
        return anchors.view(labels.shape)


def _of_images(x: Tensor, images: list[int]) -> Tensor:
    """The rows of some images, in ascending order; ``x`` itself for all."""
    return x if len(images) == len(x) else torch.stack([x[image] for image in images])


def _by_anchor(maps: list[Tensor]) -> Tensor:
    """Concatenate maps ``(B, C, H_l, W_l)`` of all levels to ``(B, A, C)``, positions in raster order."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], 1)
