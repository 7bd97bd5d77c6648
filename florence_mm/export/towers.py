"""Towers, classifiers and recognizers as functions from tensors to tensors, which is what exported files hold.

Shape legend: ``B`` pictures, clips or texts, ``T`` frames of a clip (tokens of a text), ``D`` embedding width, ``K``
classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.protocol import TwoTowerModel, label_scores


class ExportedImageTower(nn.Module):
    """Features of pictures or clips.

    Args:
        model: a two-tower model.
    """

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised pictures ``(B, 3, H, W)`` or clips ``(B, 3, T, H, W)`` to ``(B, D)``, L2-normalised."""
        return self.model.extract_image_feat(images)


class ExportedTextTower(nn.Module):
    """Features of texts given as ids.

    Args:
        model: a two-tower model with a text encoder and a projection.
    """

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.text_encoder = model.text_encoder
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode ids ``(B, T)`` int64 to ``(B, D)``, L2-normalised."""
        return F.normalize(self.text_encoder(input_ids) @ self.text_projection, dim=-1)


class ExportedClassifier(nn.Module):
    """Zero-shot classification with the features of its classes folded in.

    Args:
        model: a two-tower model with classes.
    """

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            weight = model.temperature() * model.extract_class_feat()
        self.register_buffer('class_weight', weight.T.contiguous())  # (D, K)

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised pictures ``(B, 3, H, W)`` or clips ``(B, 3, T, H, W)``; probabilities ``(B, K)``."""
        return (self.model.extract_image_feat(images) @ self.class_weight).softmax(1)


class ExportedFixedClassifier(nn.Module):
    """Classification with fixed classes.

    Args:
        model: a classifier of images, with a function from its logits to scores
            (:func:`~florence_mm.models.protocol.label_scores`).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.scores = label_scores(model)

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised pictures ``(B, 3, H, W)``; scores ``(B, K)``."""
        return self.scores(self.model(images, mode='tensor'))


class ExportedRecognizer(nn.Module):
    """Classes of clips, with a recognizer of mmaction2.

    Args:
        model: a recognizer with a 3D backbone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.neck = model.neck if model.with_neck else None
        self.head = model.cls_head
        self.gives_logits = model.cls_head.average_clips == 'score'

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised clips ``(B, 3, T, H, W)``: probabilities ``(B, K)``.

        Logits, if the head averages those over the clips of a video.
        """
        x = self.backbone(images)
        if self.neck is not None:
            x, _ = self.neck(x)
        logits = self.head(x)
        return logits if self.gives_logits else logits.softmax(1)
