"""Masked region modelling (UNITER, arXiv 1909.11740, section 3.2; ``UNITER/model/pretrain.py``).

Features of some regions are hidden, and are told from the text, which is whole, and the other regions: the feature
itself, or the detector's classes.

Shape legend: ``B`` samples, ``R`` regions, ``M`` hidden regions of the batch, ``F`` channels of features, ``K`` classes
without background, ``C`` hidden size.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch, rows_of
from florence_mm.models.multimodal.protocol import RegionReader
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_over_processes


def choose_regions(real: Tensor, probability: float = 0.15) -> Tensor:
    """Choose the regions that are hidden: each with the given probability, and at least one of an image.

    Args:
        real: ``(B, R)`` bool, True where a region is real. Random numbers are drawn on the CPU.
        probability: probability that a region is hidden.

    Returns:
        ``(B, R)`` bool, on the device of ``real``.
    """
    draw = torch.rand(real.shape).to(real.device).masked_fill(~real, 2.0)
    return real & ((draw < probability) | (draw == draw.amin(1, keepdim=True)) & ~(draw < probability).any(1, True))


class MaskedRegionHead(BaseModule):
    """Base class of heads that tell hidden regions.

    Args:
        probability: probability that a region is hidden; 0.15 in UNITER.
        hidden_size: C.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``probability`` is not in (0, 1].
    """

    needs = RegionReader

    def __init__(self, probability: float, hidden_size: int, init_cfg: dict | None) -> None:
        super().__init__(init_cfg)
        if not 0 < probability <= 1:
            raise ValueError(f'probability is {probability}; give more than 0 and at most 1 (0.15 in UNITER)')
        self.probability = probability
        # the same indices as in UNITER's Sequential
        self.net = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.LayerNorm(hidden_size, eps=1e-12))

    def hide(self, batch: FusionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Hide regions and fuse the rest with the texts.

        Returns:
            ``(M, C)`` fused tokens of the hidden regions, ``(B, R)`` which are hidden, and ``(B, R, F)`` all features.
        """
        inputs = rows_of(batch.images, batch.image_of)
        features, real = batch.model.region_features(inputs)
        hidden = choose_regions(real, self.probability)
        fused = batch.model.fuse(batch.text_tokens, batch.tokens.mask, batch.model.encode_image(inputs, hidden))
        return fused.image[hidden], hidden, features

    def set_of_samples(self, batch: FusionBatch, values: Tensor, name: str) -> None:
        """Set a field of each sample to its rows of ``values (B, R, ...)``, those of its real regions."""
        _, real = batch.model.region_features(rows_of(batch.images, batch.image_of))
        for sample, own, row in zip(batch.samples, real, values, strict=True):
            sample.set_field(row[own], name)


@MODELS.register_module()
class FusionMRFRHead(MaskedRegionHead):
    """Masked region feature regression: the mean squared error of the hidden features.

    The last matrix is the transpose of the model's projection of features.

    Args:
        probability: probability that a region is hidden; 0.15 in UNITER.
        feature_dims: F, set by the model.
        hidden_size: C, set by the model.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``probability`` is not in (0, 1].
    """

    def __init__(
        self,
        probability: float = 0.15,
        feature_dims: int = 2048,
        hidden_size: int = 768,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(probability, hidden_size, init_cfg)
        self.bias = nn.Parameter(torch.zeros(feature_dims))
        self._projection: tuple[nn.Linear, ...] = ()  # in a tuple, as it is part of the model, not of the head
        init_bert_weights(self, init_std)

    def take_model(self, model: RegionReader) -> None:
        """Take the projection of features, whose transpose is the last matrix."""
        self._projection = (model.feature_projection(),)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute features ``(..., F)`` from fused tokens ``(..., C)``."""
        return F.linear(self.net(tokens), self._projection[0].weight.t(), self.bias)

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the squared error, a mean over channels and all processes' hidden regions."""
        tokens, hidden, features = self.hide(batch)
        errors = (at_least_float32(self(tokens)) - at_least_float32(features[hidden])).square().mean(1)  # (M,)
        return {'loss_mrfr': mean_over_processes(errors.sum(), len(errors))}

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_features (R, F)`` of each sample, those of its regions as they are told by all, none hidden."""
        self.set_of_samples(batch, self(batch.fused.image), 'pred_features')


@MODELS.register_module()
class FusionMRCHead(MaskedRegionHead):
    """Masked region classification: the detector's classes of hidden regions.

    Samples have ``region_classes (R, 1 + K)``, the detector's probabilities, background first.

    Args:
        num_classes: K, without background; 1,600 in UNITER.
        kind: ``'kl'``, the KL divergence from the detector's probabilities; or ``'hard'``, the cross-entropy of its
            most probable class other than background.
        probability: probability that a region is hidden; 0.15 in UNITER.
        hidden_size: C, set by the model.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``kind`` is unknown, or a number is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        kind: str = 'kl',
        probability: float = 0.15,
        hidden_size: int = 768,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(probability, hidden_size, init_cfg)
        if kind not in ('kl', 'hard') or num_classes < 1:
            raise ValueError(
                f"kind is {kind!r} and num_classes {num_classes} of masked region classification; give 'kl' or 'hard' "
                'and at least 1'
            )
        self.kind = kind
        self.net.append(nn.Linear(hidden_size, 1 + num_classes))
        init_bert_weights(self, init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(..., 1 + K)`` from fused tokens ``(..., C)``."""
        return self.net(tokens)

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the divergence or cross-entropy, a mean over all processes' hidden regions, and ``acc_mrc``.

        Raises:
            ValueError: a sample has no classes, or other numbers of them or of regions.
        """
        tokens, hidden, _ = self.hide(batch)
        logits = at_least_float32(self(tokens))  # (M, 1 + K)
        target = self._classes(batch, hidden, logits.shape[1]).to(logits)  # (M, 1 + K)
        best = target[:, 1:].argmax(1) + 1
        if self.kind == 'hard':
            losses = F.cross_entropy(logits, best, reduction='none')
        else:
            losses = F.kl_div(logits.log_softmax(1), target, reduction='none').sum(1)
        return {
            'loss_mrc': mean_over_processes(losses.sum(), len(losses)),
            'acc_mrc': (logits[:, 1:].argmax(1) + 1 == best).float().mean(),
        }

    @staticmethod
    def _classes(batch: FusionBatch, hidden: Tensor, width: int) -> Tensor:
        """The detector's probabilities of the hidden regions, ``(M, 1 + K)``."""
        rows = []
        for number, (classes, chosen) in enumerate(zip(batch.field('region_classes'), hidden.cpu(), strict=True)):
            places = chosen.nonzero().squeeze(1)
            if classes.ndim != 2 or classes.shape[1] != width or len(places) and int(places[-1]) >= len(classes):
                raise ValueError(
                    f'sample {number} of the batch has region_classes of shape {tuple(classes.shape)}; expected a row '
                    f'for each of its regions and {width} columns, background first; set num_classes to those of the '
                    'file of regions'
                )
            rows.append(classes.cpu()[places])
        return torch.cat(rows)

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_region_classes (R, 1 + K)`` of each sample, probabilities of its regions, none hidden."""
        self.set_of_samples(batch, at_least_float32(self(batch.fused.image)).softmax(-1), 'pred_region_classes')
