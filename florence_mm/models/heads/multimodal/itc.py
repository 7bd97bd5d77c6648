"""Image-text contrastive head, with or without a momentum model and a queue (arXiv 2107.07651, 3.2; 2201.12086, 3.2).

Shape legend: ``b`` pairs on this process, ``B`` pairs of all processes, ``Q`` pairs in the queue, ``U`` different
images of this process, ``D`` embedding width, ``V`` vectors of an image, if it has several.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch, rows_of
from florence_mm.models.multimodal.protocol import Embedder, HasTowers, PairFeatures
from florence_mm.ops.collectives import Peers
from florence_mm.ops.contrastive import unified_contrastive_loss
from florence_mm.ops.distilled_contrastive import distilled_contrastive_loss
from florence_mm.ops.nearest_contrastive import nearest_contrastive_loss
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .momentum import NO_LABEL, FeatureQueue, MomentumCopies

POSITIVES = ('equal_texts', 'equal_images', 'own_text')
#: Range of the temperature in training, as in the public code of ALBEF and BLIP.
LOWEST, HIGHEST = 0.001, 0.5


@MODELS.register_module()
class FusionITCHead(BaseModule):
    """Image-text contrastive learning: features of images and texts alone, compared over all processes.

    With ``momentum``, as in ALBEF and BLIP, features are compared with those of a moving average of the model, of the
    batch and of earlier batches (the queue), and targets are softened by that model's own similarities. Without, the
    loss is half of UniCL's. It is the mean of both directions. Of a model that describes an image by several vectors, as
    BLIP-2, the similarity with a text is that of the nearest one.

    Unlike in BLIP's public code, all processes' momentum features are keys at once, not only from the next step on, so
    that the loss does not depend on the number of processes; and the momentum model has no dropout.

    Args:
        embed_dims: D.
        temperature: initial divisor of cosines, learned within [0.001, 0.5].
        positives: the pairs that are positives of a pair, in the queue too: ``'equal_texts'``, those with an equal text
            (UniCL); ``'equal_images'``, those with an equal ``img_id``, or else ``img_path`` (BLIP's retrieval
            fine-tuning); ``'own_text'``, itself alone (BLIP's pretraining).
        momentum: share of the momentum model's weights that a step keeps, 0.995 in BLIP; None: no momentum model.
        queue_size: Q, 57,600 in BLIP; a multiple of B. 0: no queue. It needs a momentum model.
        alpha: weight of the momentum model's similarities in the targets.
        alpha_steps: training steps over which ``alpha`` grows from 0; those of two epochs in BLIP.
        label_smoothing: share of the targets that is spread over all pairs, 0.1 in BLIP-2; not with a momentum model.
        hidden_size: width of pooled texts, set by the model.
        image_dims: width of pooled images, set by the model.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    needs = Embedder

    def __init__(
        self,
        embed_dims: int = 256,
        temperature: float = 0.07,
        positives: str = 'equal_texts',
        momentum: float | None = None,
        queue_size: int = 0,
        alpha: float = 0.4,
        alpha_steps: int = 0,
        label_smoothing: float = 0.0,
        hidden_size: int = 768,
        image_dims: int | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not LOWEST <= temperature <= HIGHEST:
            raise ValueError(f'temperature of the ITC head is {temperature}; give {LOWEST} to {HIGHEST}')
        if positives not in POSITIVES:
            raise ValueError(f'positives is {positives!r}; give one of {", ".join(POSITIVES)}')
        if momentum is not None and not 0 <= momentum < 1:
            raise ValueError(f'momentum is {momentum}; give at least 0 and less than 1, or None for no momentum model')
        if queue_size < 0 or (queue_size and momentum is None):
            raise ValueError(
                f'queue_size is {queue_size} and momentum {momentum}; a queue of features needs a momentum model, so '
                'set momentum (0.995 in BLIP), or queue_size=0'
            )
        if not 0 <= alpha <= 1 or alpha_steps < 0:
            raise ValueError(f'alpha={alpha} and alpha_steps={alpha_steps} must be from 0 to 1 and at least 0')
        if not 0 <= label_smoothing < 1 or (label_smoothing and momentum is not None):
            raise ValueError(
                f'label_smoothing is {label_smoothing} and momentum {momentum}; give at least 0 and less than 1, and 0 '
                'with a momentum model, whose similarities soften the targets'
            )
        self.positives, self.label_smoothing = positives, label_smoothing
        self.alpha, self.alpha_steps = alpha, alpha_steps
        self.image_proj = nn.Linear(image_dims or hidden_size, embed_dims)
        self.text_proj = nn.Linear(hidden_size, embed_dims)
        init_bert_weights(self, init_std)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))
        self.momentum = momentum
        self.copies: MomentumCopies | None = None
        self.queue = FeatureQueue(queue_size, embed_dims) if queue_size else None
        self.register_buffer('steps', None if momentum is None else torch.tensor(0))
        self._model: tuple[nn.Module, ...] = ()
        self._is_current = False

    # --- the momentum model -------------------------------------------------------------------------------------------

    def take_model(self, model: nn.Module) -> None:
        """Copy what the model encodes images and texts with, if there is a momentum model; called once, when built.

        Raises:
            ValueError: the model cannot copy its towers.
        """
        if self.momentum is None:
            return
        if not isinstance(model, HasTowers):
            raise ValueError(
                f'{type(model).__name__} cannot copy its towers, which momentum={self.momentum} of FusionITCHead '
                'needs; set momentum=None'
            )
        linears = {
            name: nn.Linear(own.in_features, own.out_features)
            for name, own in (('image_proj', self.image_proj), ('text_proj', self.text_proj))
        }
        self.copies = MomentumCopies({'towers': model.copy_towers(), **linears}, self.momentum)
        self._model = (model,)  # in a tuple, as the model has the head, not the head the model

    def restart(self) -> None:
        """Begin a new training: ``alpha`` grows from 0 again; loaded weights of the momentum model are kept."""
        if self.steps is not None:
            self.steps.zero_()

    def follow_weights(self) -> None:
        """Update the momentum model before a training step's forward pass.

        The loss does it too, unless it has been done: weights of a sharded model must be updated where they are split.
        """
        if self.copies is not None and not self._is_current:
            (model,) = self._model
            self.copies.follow({'towers': model.towers(), 'image_proj': self.image_proj, 'text_proj': self.text_proj})
            self._is_current = True

    # --- features -----------------------------------------------------------------------------------------------------

    def embed(self, batch: FusionBatch) -> PairFeatures:
        """Compute the features of the images and texts of a batch."""
        image = self.embed_images(batch.model, batch.image_tokens)  # (U, D)
        text = _features(self.text_proj, batch.model.pool_text(batch.tokens))  # (b, D)
        return PairFeatures(image, text, 1 / self.temperature)

    def embed_images(self, model: Embedder, image_tokens: Tensor) -> Tensor:
        """Compute the features of images from their tokens ``(U, S, C_v)``, L2-normalised, at least fp32.

        Returns:
            ``(U, D)``, or ``(U, V, D)`` of a model that describes an image by several vectors.
        """
        return _features(self.image_proj, model.pool_image(image_tokens))

    def embed_texts(self, model: Embedder, texts: Sequence[str]) -> Tensor:
        """Compute the features ``(n, D)`` of n texts, L2-normalised, at least fp32."""
        return _features(self.text_proj, model.pool_text(model.tokenize(texts)))

    @torch.no_grad()
    def _momentum_features(self, batch: FusionBatch) -> tuple[Tensor, Tensor]:
        """Compute the momentum model's features of images ``(b, D)`` and texts ``(b, D)``."""
        towers = self.copies['towers']
        image = _features(self.copies['image_proj'], towers.pool_image(towers.encode_image(batch.images)))
        text = _features(self.copies['text_proj'], towers.pool_text(batch.tokens))
        return rows_of(image, batch.image_of), text

    # --- training -----------------------------------------------------------------------------------------------------

    def whole_batch_advice(self) -> str:
        """What to set instead of gradient accumulation, which would leave each image fewer texts to compare with."""
        return 'train more processes'

    def scalar_limits(self) -> dict[str, tuple[float, float]]:
        """The range of the temperature."""
        return {'temperature': (LOWEST, HIGHEST)}

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the contrastive loss ``loss_itc``, a mean over the pairs of all processes.

        Raises:
            ValueError: a sample lacks a field, the batches of the processes differ in size, or the batch does not
                divide the queue.
        """
        with torch.no_grad():
            self.temperature.clamp_(LOWEST, HIGHEST)
        self.follow_weights()
        self._is_current = False
        features = batch.features
        image, text = rows_of(features.image, batch.image_of), features.text  # (b, D) each; (b, V, D) of V vectors
        labels = self._labels(batch).to(image.device, non_blocking=True)  # (b,)
        if image.ndim == 3 or self.label_smoothing:
            loss = sum(nearest_contrastive_loss(image, text, labels, features.scale, self.label_smoothing)) / 2
        elif self.copies is None:
            loss = sum(unified_contrastive_loss(image, text, labels, features.scale)) / 2
        else:
            loss = self._distilled(batch, image, text, labels)
        return {'loss_itc': loss, 'temperature': self.temperature.detach().clone()}

    def _distilled(self, batch: FusionBatch, image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss against the momentum model's features of the batch and the queue, and renew the queue."""
        peers = Peers()
        peers.check_equal_shapes(image)
        image_m, text_m = self._momentum_features(batch)  # (b, D) each
        new = [peers.gather_rows(x) for x in (image_m, text_m, labels)]  # (B, D), (B, D), (B,)
        if self.queue is not None:
            self.queue.check_batch(len(new[2]))
        queue = () if self.queue is None else (self.queue.image, self.queue.text, self.queue.label)
        keys = [torch.cat([x, old.to(x.dtype)]) for x, old in zip(new, queue, strict=True)] if queue else new
        positives = labels[:, None] == keys[2]  # (b, B + Q)
        alpha = (
            self.alpha * (self.steps.to(image.dtype) / self.alpha_steps).clamp(max=1)
            if self.alpha_steps
            else self.alpha
        )
        targets = (positives, self.temperature, alpha)
        loss_i2t = distilled_contrastive_loss(image, image_m, keys[1], *targets)
        loss_t2i = distilled_contrastive_loss(text, text_m, keys[0], *targets)
        if self.queue is not None:
            if self.positives == 'own_text':  # numbers of pairs mean nothing in another batch
                new[2] = torch.full_like(new[2], NO_LABEL)
            self.queue.push(*new)
        self.steps.add_(1)
        return (loss_i2t + loss_t2i) / 2

    def _labels(self, batch: FusionBatch) -> Tensor:
        """Labels ``(b,)`` of pairs; equal ones are each other's positives."""
        if self.positives == 'equal_texts':
            return torch.tensor(batch.text_labels)
        if self.positives == 'equal_images':
            labels = batch.image_labels()
            return torch.tensor(batch.field('img_path') if labels is None else labels)
        return torch.tensor(list(Peers().row_numbers(len(batch.samples))))

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Set ``image_feat`` of each sample, ``(D,)`` or ``(V, D)``, and ``text_feat (n, D)`` of those with n ``texts``.

        They are on the CPU.
        """
        image = self.embed_images(batch.model, batch.image_tokens).cpu()  # (U, D) or (U, V, D)
        for sample, number in zip(batch.samples, batch.image_of, strict=True):
            sample.set_field(image[number], 'image_feat')
        described = [sample for sample in batch.samples if 'texts' in sample]
        if described:
            texts = [text for sample in described for text in sample.texts]
            features = self.embed_texts(batch.model, texts).cpu().split([len(one.texts) for one in described])
            for sample, text in zip(described, features, strict=True):
                sample.set_field(text, 'text_feat')


def _features(projection: nn.Linear, pooled: Tensor) -> Tensor:
    """Project pooled ``(n, C)`` or ``(n, V, C)`` to D channels, L2-normalised, at least fp32."""
    return F.normalize(at_least_float32(projection(pooled)), dim=-1)
