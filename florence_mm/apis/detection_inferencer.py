"""Inferencer for detection, with fixed classes or zero-shot from class names."""

from collections.abc import Iterator, Sequence
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
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.detections import draw_detections

from .classes import choose_classes
from .inputs import (
    Failed,
    InferencePipeline,
    Picture,
    ReadPicture,
    free_name,
    keep_originals,
    list_pictures,
    predict_readable,
    read_batches,
)
from .results import write_results
from .setup import model_kind, set_up_inference, wrong_kind

_FILE = 'detections.json'


class DetectionInferencer:
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

    Raises:
        UsageError: config or checkpoint is missing, or the config has no detector or no test pipeline.
        ValueError: the checkpoint lacks weights of the model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.templates = templates
        self.batch_size = batch_size
        self.pipeline, self.model, meta, self.device, self.cfg = set_up_inference(
            config, checkpoint, device, batch_size, InferencePipeline, 'image', default_scope='mmdet'
        )
        if model_kind(self.model) not in (None, 'detector'):
            raise wrong_kind(self.cfg, self.model, 'a detector')
        self.known_classes = self.pipeline.class_names(meta)

    @property
    def zero_shot(self) -> bool:
        """Whether the model detects classes given by name."""
        return isinstance(self.model, ZeroShotModel)

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        classes: str | Sequence[str] | None = None,
        score_thr: float = 0.3,
        out_dir: str | Path | None = None,
        skip_bad: bool = True,
    ) -> list[dict[str, Any]]:
        """Detect objects.

        Args:
            images: Files, folders (with subfolders, sorted), arrays ``(H, W, 3)`` uint8 RGB, or a list of those.
            classes: Class names separated by commas, or a list. A zero-shot model detects these; of a model with fixed
                classes only these are reported. None: the classes in the zero-shot model's config, or all fixed ones.
            score_thr: Lowest reported score, from 0 to 1.
            out_dir: Folder for images with boxes and ``detections.json``; None writes nothing. Until the end, finished
                results are lines of ``detections.json.part``.
            skip_bad: Continue after an image that cannot be read or processed, whose result has ``error`` instead of
                boxes; False raises its error.

        Returns:
            One dict per image, in order: ``file`` (None for an array), ``width``, ``height``, ``boxes`` (``[x1, y1, x2,
            y2]`` in pixels of the image), ``labels`` (names) and ``scores``, in falling order of the scores; with
            ``out_dir`` also ``picture``, the name of the drawn file. Of an image that failed: ``file`` and ``error``, a
            sentence.

        Raises:
            UsageError: there are no images, a model with fixed classes lacks a class, the model finds no boxes, or an
                image is in the output folder, where its drawing could overwrite it.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        if not is_finite(score_thr) or not 0 <= score_thr <= 1:
            raise UsageError(f'score_thr is {score_thr!r}; give a number from 0 to 1')
        images = list_pictures(images)
        if out_dir is not None:
            keep_originals([image for image in images if not isinstance(image, np.ndarray)], out_dir)
        names, reported = choose_classes(self.model, self.known_classes, classes, self.templates)
        results = self._each(images, names, reported, score_thr, out_dir, skip_bad)
        if out_dir is None:
            return list(results)
        head = {'classes': list(names if reported is None else reported), 'score_thr': score_thr}
        return write_results(results, Path(out_dir) / _FILE, head, 'images')

    def _each(
        self,
        images: Sequence[Picture],
        names: Sequence[str],
        reported: Sequence[str] | None,
        score_thr: float,
        out_dir: str | Path | None,
        skip_bad: bool,
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of each image, drawn if there is a folder for that."""
        colours, taken = names if reported is None else reported, set()
        for batch in read_batches(images, self.batch_size, skip_bad, 'detecting'):
            for read, found in predict_readable(batch, self._detect, skip_bad):
                result = {'file': None if read.file is None else str(read.file)}
                if isinstance(found, Failed):
                    yield {**result, 'error': str(found)}
                    continue
                result |= self._to_plain(read.image, found, names, reported, score_thr)
                if out_dir is not None:
                    result['picture'] = free_name(read.file or 'picture', '.png', taken)
                    drawn = draw_detections(read.image, result['boxes'], result['labels'], result['scores'], colours)
                    save_png(drawn, Path(out_dir) / result['picture'])
                yield result

    @torch.no_grad()
    def _detect(self, batch: Sequence[ReadPicture]) -> list[InstanceData]:
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
