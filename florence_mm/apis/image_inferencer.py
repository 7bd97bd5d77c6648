"""Inferencer for image classification, by free text or with fixed classes, and for features of images."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from florence_mm.formats.feature_rows import check_rows_path
from florence_mm.language.class_names import KNOWN_CLASSES, load_class_names
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.visualization.classes import draw_classes

from .base import Inferencer
from .classes import best_classes, choose_classes
from .embedding import embed_packed
from .inputs import Picture, ReadInput
from .results import Output
from .setup import check_count, model_kind, wrong_kind

_FILE = 'classes.json'
_OTHERS = ('detector', 'recognizer', 'vision-language model')


class ImageInferencer(Inferencer):
    """Classify images with a trained model, by free text or with fixed classes, or embed them.

    ::

        inferencer = ImageInferencer('configs/...py', 'checkpoint.pth')
        for result in inferencer('photos/', classes='a dog, a cat, a bicycle', out_dir='classified'):
            print(result['file'], result['labels'][0], result['scores'][0])

    Args:
        config (str | Path | Config): Config of a :class:`UniCL` or any image classifier of mmpretrain, its file, or the
            name of a model; the pipeline is that of ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Images per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no classifier or no test pipeline for images.
        ValueError: the checkpoint lacks weights of the model.
    """

    _scope = 'mmpretrain'

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        super().__init__(config, checkpoint, device, batch_size, precision)
        if model_kind(self.model) in _OTHERS:
            raise wrong_kind(self.cfg, self.model, 'an image classifier or a two-tower model')
        self.known_classes = self.pipeline.class_names(self.meta)
        # what the config says stays, whatever classes later calls set
        self._own_classes = list(self.model.class_names) or self._data_classes() if self.zero_shot else None

    @property
    def zero_shot(self) -> bool:
        """Whether the model classifies by free text."""
        return isinstance(self.model, ZeroShotModel)

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        classes: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        top: int = 5,
        out_dir: str | Path | None = None,
        features: bool | str | Path = False,
        skip_bad: bool = True,
        out: str | Path | None = None,
    ) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: Files, folders (with subfolders, sorted), globs, URLs, arrays ``(H, W, 3)`` uint8 RGB, pictures of
                Pillow, a list of those, or a generator.
            classes: Class names separated by commas, or a list. A zero-shot model chooses among these; of a model with
                fixed classes only these are reported. None: the classes in the zero-shot model's config, or all fixed
                ones; a two-tower model without classes then only gives features.
            templates: Prompt templates of a zero-shot model's classes, ``'imagenet'``, ``'simple'``, ``'none'`` or
                strings with one ``{}`` each; None: the model's.
            top: Most classes reported.
            out_dir: Folder for a drawing of each image with its classes, and without ``out`` for ``classes.json``; None
                draws nothing.
            features: Also give features; a path is that of a ``.npy`` file ``(N, D)`` to which they are written, a row
                for each image that did not fail.
            skip_bad: Continue after an image that cannot be read or processed, whose result has ``error`` instead of
                the other keys; False raises its error.
            out: JSON file for the results; None writes none without ``out_dir``. Until the end, finished results are
                lines of ``<out>.part``.

        Returns:
            One dict per image, in order: ``file`` (None for one in memory), ``width``, ``height``, ``labels`` (names,
            best first) and ``scores`` (probabilities); with ``features`` also ``features``, an array ``(D,)``, float32,
            L2-normalised, and if they go to a file ``row``, its number there; with ``out_dir`` also ``picture``, the
            name of the drawing. Of an image that failed: ``file`` and ``error``, a sentence.

        Raises:
            UsageError: there are no images or classes, a model with fixed classes lacks a class, a number is out of
                range, or an image is in the output folder, where its drawing could overwrite it.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        return list(self.stream(images, classes, templates, top, out_dir, features, skip_bad, out))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        classes: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        top: int = 5,
        out_dir: str | Path | None = None,
        features: bool | str | Path = False,
        skip_bad: bool = True,
        out: str | Path | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Classify images, and yield each result as it is made, for images without end; see :meth:`__call__`."""
        check_count('top', top)
        rows = None if isinstance(features, bool) else features
        if rows is not None:
            check_rows_path(rows)
        names, reported = self._choose(classes, templates, bool(features))

        def classify(batch: Sequence[ReadInput]) -> list[dict[str, Any]]:
            found = [{'width': one.image.shape[1], 'height': one.image.shape[0]} for one in batch]
            packed = pseudo_collate([self.pipeline(one.image, one.file) for one in batch])
            if names is not None:
                for own, scores in zip(found, self._scores(packed), strict=True):
                    own |= best_classes(scores, names, reported, top)
            if features:
                for own, row in zip(found, embed_packed(self.model, self.cfg, packed), strict=True):
                    own['features'] = row
            return found

        def draw(read: ReadInput, result: dict[str, Any]) -> np.ndarray:
            return draw_classes(read.image, result.get('labels', ()), result.get('scores', ()))

        if out is None and out_dir is not None:
            out = Path(out_dir) / _FILE
        written = None
        if out is not None or rows is not None:
            head = {} if names is None else {'classes': list(names if reported is None else reported)}
            written = Output(out, out_dir, head, 'images', rows)
        return self._stream(images, classify, 'classifying', skip_bad, written, draw)

    def _choose(
        self, classes: str | Sequence[str] | None, templates: str | Sequence[str] | None, features: bool
    ) -> tuple[list[str] | None, list[str] | None]:
        """Set or choose the classes, see :func:`choose_classes`; None, None if only features are asked."""
        if self.zero_shot and classes is None:
            if not self._own_classes and features:
                return None, None
            classes = self._own_classes or None
            if classes is not None:
                self.model.set_classes(classes, templates)  # names of ImageNet may occur twice
                return list(classes), None
        return choose_classes(self.model, self.known_classes, classes, templates)

    def _data_classes(self) -> list[str]:
        """Names of the classes of the test data, which a two-tower model has no head for."""
        names = self.pipeline.dataset.get('class_names')
        if isinstance(names, str) and names in KNOWN_CLASSES:
            return load_class_names(names)
        return self.known_classes

    @torch.no_grad()
    def _scores(self, packed: dict[str, Any]) -> list[list[float]]:
        """Predict the score of each class for each image."""
        samples = self.model.test_step(packed)
        scores = [sample.get('pred_score') if hasattr(sample, 'get') else None for sample in samples]
        if any(not isinstance(one, Tensor) or one.ndim != 1 for one in scores):
            raise wrong_kind(self.cfg, self.model, 'an image classifier or a two-tower model')
        if not all(torch.isfinite(one).all() for one in scores):
            raise ValueError('the model gives scores that are not finite numbers; check its weights')
        return [one.float().cpu().tolist() for one in scores]
