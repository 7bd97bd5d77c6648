"""Inferencer for detection, with fixed classes or zero-shot from class names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from florence_mm.models.protocol import ZeroShotModel
from florence_mm.utils.files import write_atomic
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.detections import draw_detections

from .inputs import (
    InferencePipeline,
    Picture,
    ReadPicture,
    choose_classes,
    free_name,
    keep_originals,
    list_pictures,
    read_batches,
)
from .setup import set_up_inference

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
        UsageError: config or checkpoint is missing, or the config has no model or no test pipeline.
        ValueError: the checkpoint lacks weights of the model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None,
        device: str | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.templates = templates
        self.batch_size = batch_size
        self.pipeline, self.model, meta, self.device, self.cfg = set_up_inference(
            config, checkpoint, device, batch_size, InferencePipeline, 'image', default_scope='mmdet'
        )
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
        skip_bad: bool = False,
    ) -> list[dict[str, Any]]:
        """Detect objects.

        Args:
            images: Files, folders (with subfolders, sorted), arrays ``(H, W, 3)`` uint8 RGB, or a list of those.
            classes: Class names separated by commas, or a list. A zero-shot model detects these; of a model with fixed
                classes only these are reported. None: the classes in the zero-shot model's config, or all fixed ones.
            score_thr: Lowest reported score.
            out_dir: Folder for images with boxes and ``detections.json``; None writes nothing.
            skip_bad: Continue after an unreadable image, whose result has ``error`` instead of boxes.

        Returns:
            One dict per image, in order: ``file`` (None for an array), ``width``, ``height``, ``boxes`` (``[x1, y1, x2,
            y2]`` in pixels of the image), ``labels`` (names) and ``scores``, in falling order of the scores; with
            ``out_dir`` also ``picture``, the name of the drawn file.

        Raises:
            UsageError: there are no images, a model with fixed classes lacks a class, or an image is in the output
                folder, where its drawing could overwrite it.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        images = list_pictures(images)
        if out_dir is not None:
            keep_originals([image for image in images if not isinstance(image, np.ndarray)], out_dir)
        names, reported = choose_classes(self.model, self.known_classes, classes, self.templates)
        results: list[dict[str, Any]] = []
        taken: set[str] = set()
        for batch in read_batches(images, self.batch_size, skip_bad, 'detecting'):
            for file, image, found in self._detect(batch):
                result = {'file': None if file is None else str(file)}
                if isinstance(found, str):
                    results.append({**result, 'error': found})
                    continue
                result |= self._to_plain(image, found, names, reported, score_thr)
                if out_dir is not None:
                    stem = 'picture' if file is None else Path(file).stem
                    result['picture'] = free_name(stem, '.png', taken)
                    colours = names if reported is None else reported
                    drawn = draw_detections(image, result['boxes'], result['labels'], result['scores'], colours)
                    save_png(drawn, Path(out_dir) / result['picture'])
                results.append(result)
        if out_dir is not None:
            listed = {
                'classes': list(names if reported is None else reported),
                'score_thr': score_thr,
                'images': results,
            }
            write_atomic(Path(out_dir) / _FILE, json.dumps(listed, indent=1, ensure_ascii=False) + '\n')
        return results

    def _detect(self, batch: list[ReadPicture]) -> list[tuple]:
        """Predict a batch; returns ``(file, image, prediction or error)`` of each image."""
        packed = [self.pipeline(image, file) for file, image, error in batch if error is None]
        samples = []
        if packed:
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate(packed))
        found = iter(samples)
        return [(file, image, error or next(found).pred_instances.cpu()) for file, image, error in batch]

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
