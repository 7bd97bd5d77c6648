"""Inferencer for detection, with fixed classes or zero-shot from class names."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from florence_mm.errors import UsageError
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.utils.numbers import is_finite
from florence_mm.visualization.detections import draw_detections

from .base import Inferencer
from .classes import choose_classes
from .inputs import Picture, ReadInput
from .results import Output
from .setup import model_kind, wrong_kind

_FILE = 'detections.json'


class DetectionInferencer(Inferencer):
    """Detect objects in images with a trained model.

    ::

        inferencer = DetectionInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('photos/', classes='cat, dog, bench', out_dir='detections')

    Args:
        config (str | Path | Config): Config of a :class:`ZeroShotDetector` or any mmdet detector; the pipeline is that
            of ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        templates (str | Sequence[str] | None): Prompt templates of the classes, ``'imagenet'``, ``'simple'``,
            ``'none'`` or strings with one ``{}`` each; None: the model's.
        batch_size (int): Images per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no detector or no test pipeline.
        ValueError: the checkpoint lacks weights of the model.
    """

    _scope = 'mmdet'

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        super().__init__(config, checkpoint, device, batch_size, precision)
        self.templates = templates
        if model_kind(self.model) not in (None, 'detector'):
            raise wrong_kind(self.cfg, self.model, 'a detector')
        self.known_classes = self.pipeline.class_names(self.meta)

    @property
    def zero_shot(self) -> bool:
        """Whether the model detects classes given by name."""
        return isinstance(self.model, ZeroShotModel)

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        classes: str | Sequence[str] | None = None,
        score_thr: float = 0.3,
        out_dir: str | Path | None = None,
        skip_bad: bool = True,
    ) -> list[dict[str, Any]]:
        """Detect objects.

        Args:
            images: Files, folders (with subfolders, sorted), globs, URLs, arrays ``(H, W, 3)`` uint8 RGB, pictures of
                Pillow, a list of those, or a generator.
            classes: Class names separated by commas, or a list. A zero-shot model detects these; of a model with fixed
                classes only these are reported. None: the classes in the zero-shot model's config, or all fixed ones.
            score_thr: Lowest reported score, from 0 to 1.
            out_dir: Folder for images with boxes and ``detections.json``; None writes nothing. Until the end, finished
                results are lines of ``detections.json.part``.
            skip_bad: Continue after an image that cannot be read or processed, whose result has ``error`` instead of
                boxes; False raises its error.

        Returns:
            One dict per image, in order: ``file`` (None for one in memory), ``width``, ``height``, ``boxes`` (``[x1,
            y1, x2, y2]`` in pixels of the image), ``labels`` (names) and ``scores``, in falling order of the scores;
            with ``out_dir`` also ``picture``, the name of the drawn file. Of an image that failed: ``file`` and
            ``error``, a sentence.

        Raises:
            UsageError: there are no images, a model with fixed classes lacks a class, the model finds no boxes, or an
                image is in the output folder, where its drawing could overwrite it.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        return list(self.stream(images, classes, score_thr, out_dir, skip_bad))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        classes: str | Sequence[str] | None = None,
        score_thr: float = 0.3,
        out_dir: str | Path | None = None,
        skip_bad: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Detect objects, and yield each result as it is made, for images without end; see :meth:`__call__`."""
        if not is_finite(score_thr) or not 0 <= score_thr <= 1:
            raise UsageError(f'score_thr is {score_thr!r}; give a number from 0 to 1')
        names, reported = choose_classes(self.model, self.known_classes, classes, self.templates)
        colours = list(names if reported is None else reported)

        def detect(batch: Sequence[ReadInput]) -> list[dict[str, Any]]:
            found = zip(batch, self._detect(batch), strict=True)
            return [self._to_plain(one.image, objects, names, reported, score_thr) for one, objects in found]

        def draw(read: ReadInput, result: dict[str, Any]) -> np.ndarray:
            return draw_detections(read.image, result['boxes'], result['labels'], result['scores'], colours)

        out = None
        if out_dir is not None:
            out = Output(Path(out_dir) / _FILE, out_dir, {'classes': colours, 'score_thr': score_thr}, 'images')
        return self._stream(images, detect, 'detecting', skip_bad, out, draw)

    @torch.no_grad()
    def _detect(self, batch: Sequence[ReadInput]) -> list[InstanceData]:
        """Predict the objects of each image."""
        samples = self.model.test_step(pseudo_collate([self.pipeline(one.image, one.file) for one in batch]))
        found = [sample.get('pred_instances') if hasattr(sample, 'get') else None for sample in samples]
        if any(one is None or not {'bboxes', 'scores', 'labels'} <= set(one.keys()) for one in found):
            raise wrong_kind(self.cfg, self.model, 'a detector')
        found = [one.cpu() for one in found]
        if not all(torch.isfinite(one.scores).all() and torch.isfinite(one.bboxes).all() for one in found):
            raise ValueError('the model gives scores or boxes that are not finite numbers; check its weights')
        return found

    @staticmethod
    def _to_plain(
        image: np.ndarray, found: Any, names: Sequence[str], reported: Sequence[str] | None, score_thr: float
    ) -> dict[str, Any]:
        keep = found.scores >= score_thr
        if reported is not None:
            # a head may have more classes than known names
            chosen = torch.tensor([label for label, name in enumerate(names) if name in reported])
            keep &= torch.isin(found.labels, chosen)
        found = found[keep]
        order = found.scores.argsort(descending=True, stable=True)
        # boxes are not more exact than hundredths of a pixel
        boxes = [[round(value, 2) for value in box] for box in found.bboxes[order].tolist()]
        labels = found.labels[order].tolist()
        return {
            'width': image.shape[1],
            'height': image.shape[0],
            'boxes': boxes,
            'labels': [names[label] if label < len(names) else str(label) for label in labels],
            'scores': [round(score, 4) for score in found.scores[order].tolist()],
        }
