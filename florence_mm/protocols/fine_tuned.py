"""Classification by a model that was fine-tuned on the classes of a set (Florence, section 3.3 and table 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from florence_mm.errors import UsageError
from florence_mm.models.protocol import unwrap_model

from .base import LoadedLike
from .features import in_parts, prepared_batches
from .on_set import OnSet
from .sets import labels_of, part_of


@dataclass(frozen=True)
class FineTunedClassification(OnSet):
    """Classification of a set's test images by a model with its classes, such as ``UniCLClassifier``.

    Args:
        data: the set.
    """

    group: ClassVar[str] = 'fine-tuning'

    @torch.no_grad()
    def run(
        self,
        model: LoadedLike,
        data_root: str | Path,
        out_dir: str | Path,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **opts: Any,
    ) -> dict[str, float]:
        """Evaluate a model.

        Args:
            model: a classifier, whose predictions have ``pred_score`` of the set's classes in the order of the labels.
            data_root: folder of all data sets.
            out_dir: folder of this protocol; nothing is written there.
            batch_size: images of a batch.
            num_workers: processes that load images.
            **opts: options of other protocols.

        Returns:
            ``top1``, ``top5`` and ``mean_per_class`` from 0 to 1, and ``num_images``.

        Raises:
            UsageError: the model has no classes, or another number.
            DataError: the set is missing, not complete, or an image cannot be read.
        """
        classifier = unwrap_model(model.model)
        data = self.data.load(data_root, 'test')

        def scores_of(images: Any) -> Tensor:
            scores = []
            for batch in prepared_batches(model, images, self.name, batch_size, num_workers):
                samples = classifier(**classifier.data_preprocessor(batch, False), mode='predict')
                missing = 'pred_score' not in samples[0]
                if missing or len(samples[0].pred_score) != len(self.data.classes):
                    number = 'no classes' if missing else f'{len(samples[0].pred_score)} classes'
                    raise UsageError(
                        f'{type(classifier).__name__} has {number} and {self.data.name} has {len(self.data.classes)}; '
                        'give a model that was fine-tuned on the set, such as UniCLClassifier'
                    )
                scores += [sample.pred_score.float().cpu() for sample in samples]
            return torch.stack(scores)

        figures = self.data.figures(in_parts(data.images, scores_of), labels_of(data))
        return {**figures, 'num_images': len(data), **part_of(data)}
