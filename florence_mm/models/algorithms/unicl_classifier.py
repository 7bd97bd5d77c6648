"""Fine-tuning of two towers on the classes of a set (Florence, section 3.3: ImageNet-1K with UniCL's loss).

The image tower and its projection are trained with a head that begins as the text features of the class names. The text
tower has done its work then: it is frozen, and kept for its class names.

Shape legend: ``B`` images, ``D`` embedding width, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.language.class_names import load_class_names
from florence_mm.language.prompts import get_templates
from florence_mm.models.base import FlorenceModel, build_part
from florence_mm.ops.contrastive import unified_contrastive_loss
from florence_mm.registry import MODELS


@MODELS.register_module()
class UniCLClassifier(FlorenceModel):
    """Image tower of UniCL with a classifier that begins as the text features of the class names.

    The loss is UniCL's with the class's row of the head in place of the text: images of one class in the batch are
    positives of each other's rows. Weights of the towers come from ``init_cfg`` of ``towers``, and those of the head
    from the towers then, in ``init_weights``; a checkpoint of this model has both.

    Args:
        towers: UniCL, or its config.
        classes: class names in the order of the labels: a list, a text file or the name of a known data set.
        templates: prompts for the first weights, see :func:`florence_mm.language.prompts.get_templates`.
        head: the head, or its config without ``num_classes`` and ``embed_dims``.
        data_preprocessor: see mmengine; by default that of two towers.
        init_cfg: see mmengine.
    """

    def __init__(
        self,
        towers: dict | nn.Module,
        classes: str | Sequence[str],
        templates: str | Sequence[str] = 'imagenet',
        head: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.class_names = load_class_names(classes)
        self.templates = get_templates(templates)
        self.towers = build_part(towers)
        sizes = {'num_classes': len(self.class_names), 'embed_dims': self.towers.text_projection.shape[1]}
        self.head = build_part(head or {}, type='TextInitializedHead', **sizes)
        for parameter in (*self.towers.text_encoder.parameters(), self.towers.text_projection):
            parameter.requires_grad_(False)

    def init_weights(self) -> None:
        """Initialize the towers, then the head from the text features of the class names."""
        super().init_weights()
        if self.init_cfg is None:  # otherwise the whole model was loaded
            training = self.towers.training
            self.head.set_features(self.towers.eval().encode_classes(self.class_names, self.templates))
            self.towers.train(training)

    def train(self, mode: bool = True) -> 'UniCLClassifier':
        """Set the mode; the text tower stays in evaluation mode."""
        super().train(mode)
        self.towers.text_encoder.eval()
        return self

    def extract_image_feat(self, inputs: Tensor) -> Tensor:
        """Encode images ``(B, 3, H, W)`` to ``(B, D)``, L2-normalised."""
        return self.towers.extract_image_feat(inputs)

    def pool_images(self, inputs: Tensor) -> Tensor:
        """Encode images ``(B, 3, H, W)`` to the pooled features ``(B, C)`` of the tower."""
        return self.towers.pool_images(inputs)

    def whole_batch_advice(self) -> str:
        """What to set instead of gradient accumulation, which would leave each image fewer others to compare with."""
        return 'set model.towers.micro_batch, the number of images whose activations are kept at a time'

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor:
        """Compute the logits ``(B, K)`` of preprocessed images ``(B, 3, H, W)``."""
        return self.towers.temperature() * self.head(self.extract_image_feat(inputs))

    def score_labels(self, logits: Tensor) -> Tensor:
        """Compute the probabilities ``(B, K)`` of the classes from logits ``(B, K)``."""
        return logits.softmax(1)

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute both terms of UniCL's loss with the classes in place of texts.

        Args:
            inputs: ``(B, 3, H, W)``.
            data_samples: B samples with ``gt_label``.

        Returns:
            ``loss_i2c`` and ``loss_c2i``, which mmengine sums, and ``temperature``, which it logs.

        Raises:
            ValueError: a sample has no class, or one outside the head's.
        """
        labels = self._labels(data_samples).to(inputs.device, non_blocking=True)
        self.towers.limit_temperature()
        image_feat = self.towers.training_image_feat(inputs)  # (B, D)
        rows = self.head.class_features()[labels]  # (B, D)
        temperature = self.towers.temperature()
        loss_i2c, loss_c2i = unified_contrastive_loss(image_feat, rows, labels, temperature)
        return {'loss_i2c': loss_i2c, 'loss_c2i': loss_c2i, 'temperature': temperature.detach()}

    def _labels(self, data_samples: Sequence[Any] | None) -> Tensor:
        for index, sample in enumerate(data_samples or [None]):
            if sample is None or 'gt_label' not in sample:
                raise ValueError(
                    f'sample {index} of the batch has no gt_label, which fine-tuning on classes needs; take a data set '
                    'of classes, such as ImageFolderText, and end the pipeline with PackImageText'
                )
        labels = torch.cat([sample.gt_label.reshape(1) for sample in data_samples])
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.class_names):
            raise ValueError(
                f'labels from {int(labels.min())} to {int(labels.max())} must be within the {len(self.class_names)} '
                'classes of the model; give it the class names of the data set'
            )
        return labels

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list:
        """Predict classes.

        Args:
            inputs: ``(B, 3, H, W)``.
            data_samples: B samples; None creates them.

        Returns:
            the samples with ``pred_score (K,)`` and ``pred_label (1,)``, on the CPU.
        """
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in range(len(inputs))]
        scores = self.score_labels(self.tensor(inputs)).cpu()  # (B, K)
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        return list(data_samples)
