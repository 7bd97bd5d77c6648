"""Classifier whose weights begin as text features of the class names, for fine-tuning two towers on classes.

Shape legend: ``K`` classes, ``D`` channels, ``B`` images.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS


@MODELS.register_module()
class TextInitializedHead(BaseModule):
    """A vector for each class, compared with images by the cosine.

    Begun from text features (:meth:`set_features`) it predicts what zero-shot classification does.

    Args:
        num_classes: K.
        embed_dims: D, of the space that images and texts share.
        init_cfg: see mmengine.
    """

    def __init__(self, num_classes: int, embed_dims: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.weight = nn.Parameter(torch.empty(num_classes, embed_dims))
        nn.init.trunc_normal_(self.weight, std=0.02)

    @torch.no_grad()
    def set_features(self, features: Tensor) -> None:
        """Begin from the text features ``(K, D)`` of the classes.

        Raises:
            ValueError: their shape is another.
        """
        if features.shape != self.weight.shape:
            raise ValueError(
                f'the text features have shape {tuple(features.shape)}, and the head has {tuple(self.weight.shape)}, '
                'classes and channels; give as many class names as num_classes'
            )
        self.weight.copy_(features)

    def class_features(self) -> Tensor:
        """Return the classes ``(K, D)``, L2-normalised, at least fp32."""
        return F.normalize(at_least_float32(self.weight), dim=-1)

    def forward(self, image_feat: Tensor) -> Tensor:
        """Compute the cosines ``(B, K)`` of images ``(B, D)``, L2-normalised, with the classes."""
        return image_feat @ self.class_features().T
