"""Dynamic DETR (Dai et al., ICCV 2021): dynamic encoder, and a detector of backbone, neck, encoder and dynamic decoder.

The dynamic encoder (section 3.2) puts convolutions with attention over scale, place and channels in the place of a
transformer's encoder; its layer is the block of Dynamic Head. The decoder (section 3.3) is
:class:`~florence_mm.models.heads.dynamic_detr_head.DynamicDETRHead`.

Shapes: ``B`` images, ``C`` channels, ``H_l, W_l`` size of a level.
"""

from collections.abc import Sequence

from mmdet.models.detectors import SingleStageDetector
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.base import build_part
from florence_mm.models.layers.dyhead_block import DyHeadBlock, run_blocks
from florence_mm.registry import MODELS


@MODELS.register_module()
class DynamicDETREncoder(BaseModule):
    """Dynamic encoder: blocks of scale-, spatial- and representation-aware attention over a pyramid.

    Parameters: ``blocks.n.*``, those of the tower of :class:`DynamicHead`, see :class:`DyHeadBlock`.

    Args:
        in_channels: channels of the pyramid.
        embed_dims: channels ``C`` of the output, a multiple of 16; None: ``in_channels``.
        num_layers: number of blocks.
        offset_mode: ``'resized'``, or ``'legacy'`` for the tower of public Dynamic Head weights.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        init_cfg: see mmengine.

    Raises:
        ValueError: see :class:`DyHeadBlock`.
    """

    def __init__(
        self,
        in_channels: int = 256,
        embed_dims: int | None = None,
        num_layers: int = 6,
        offset_mode: str = 'resized',
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        channels = embed_dims or in_channels
        widths = [in_channels] + [channels] * num_layers
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(DyHeadBlock(channels, width, offset_mode) for width in widths[:-1])

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Encode maps ``(B, in_channels, H_l, W_l)`` to ``(B, C, H_l, W_l)``, finest first."""
        return tuple(run_blocks(self.blocks, x, self.with_cp))


@MODELS.register_module()
class DynamicDETR(SingleStageDetector):
    """Detector of a backbone, a feature pyramid, a dynamic encoder and a dynamic decoder.

    Args:
        backbone: config of a backbone whose maps the neck takes.
        neck: config of a feature pyramid, such as ``mmdet.FPN``.
        encoder: config of :class:`DynamicDETREncoder`.
        bbox_head: config of :class:`DynamicDETRHead`.
        train_cfg: ``assigner``, see ``mmdet.DETRHead``; None: the head's own.
        test_cfg: ``max_per_img``; None: the head's own.
        data_preprocessor: config of ``mmdet.DetDataPreprocessor``.
        init_cfg: see mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        encoder: dict,
        bbox_head: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # built here: mmdet would look for ours in the default scope
        super(SingleStageDetector, self).__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = build_part(backbone)
        self.neck = build_part(neck)
        self.encoder = build_part(encoder)
        given = {'train_cfg': train_cfg, 'test_cfg': test_cfg}
        self.bbox_head = build_part({**bbox_head, **{name: cfg for name, cfg in given.items() if cfg is not None}})

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Encode images ``(B, 3, H, W)`` to the encoder's pyramid, maps ``(B, C, H_l, W_l)``."""
        return self.encoder(super().extract_feat(batch_inputs))
