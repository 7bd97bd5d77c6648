"""Zero-shot classification on the sets of CLIP's protocol (Florence, section 3.1 and table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from florence_mm.errors import UsageError
from florence_mm.models.protocol import ClassifiesByText, unwrap_model

from .base import LoadedLike
from .features import FeatureCache
from .on_set import OnSet
from .sets import labels_of, part_of


@dataclass(frozen=True)
class ZeroShotClassification(OnSet):
    """Zero-shot classification of a set's test images by the text features of its class names in CLIP's prompts.

    Args:
        data: the set.
    """

    group: ClassVar[str] = 'zero-shot'
    needs: ClassVar[type] = ClassifiesByText

    @torch.no_grad()
    def run(
        self,
        model: LoadedLike,
        data_root: str | Path,
        out_dir: str | Path,
        cache_dir: str | Path | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **opts: Any,
    ) -> dict[str, float]:
        """Evaluate a model.

        Args:
            model: a two-tower model.
            data_root: folder of all data sets.
            out_dir: folder of this protocol.
            cache_dir: folder of image features, which linear probes use too; None: inside ``out_dir``.
            batch_size: images of a batch.
            num_workers: processes that load images.
            **opts: options of other protocols.

        Returns:
            ``top1``, ``top5`` and ``mean_per_class``, or ``mAP``, from 0 to 1, and ``num_images``.

        Raises:
            UsageError: the model has no text tower, or gives features that are not finite.
            DataError: the set is missing, not complete, or an image cannot be read.
        """
        towers = unwrap_model(model.model)
        if not isinstance(towers, ClassifiesByText):
            raise UsageError(f'{type(towers).__name__} compares no images with texts; give a two-tower model, UniCL')
        data = self.data.load(data_root, 'test')
        cache = FeatureCache(model, cache_dir or Path(out_dir) / 'features', batch_size, num_workers)
        (pooled,) = cache.get(data, f'{self.data.name}-test')
        classes = towers.encode_classes(self.data.classes, self.data.templates)  # (K, D)
        parts = [towers.project_images(part.to(classes.device)) @ classes.T for part in pooled.split(4096)]
        scores = torch.cat(parts).cpu()  # (N, K) cosines
        return {**self.data.figures(scores, labels_of(data)), 'num_images': len(data), **part_of(data)}
