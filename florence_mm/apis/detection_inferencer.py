"""Objects in images, by a detector of fixed classes or from class names in plain text."""

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
from .setup import get_ready

_FILE = 'detections.json'


class DetectionInferencer:
    """Detect objects in images with a trained model.

    ::

        inferencer = DetectionInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('photos/', classes='cat, dog, bench', out_dir='detections')

    Args:
        config (str | Path | Config): Of a :class:`ZeroShotDetector` or of any mmdet detector; ``test_dataloader`` gives
            the pipeline.
        checkpoint (str | Path | None): File or URL with all the model's weights; None keeps what ``init_cfg`` loads.
        device (str | None): None takes the GPU where there is one.
        templates (str | Sequence[str] | None): Prompts of the classes, ``'imagenet'``, ``'simple'``, ``'none'`` or
            strings with one ``{}`` each; None takes the model's.
        batch_size (int): Images that go through the model together.

    Raises:
        UsageError: config or checkpoint are missing, or the config has no model or no test pipeline.
        ValueError: the checkpoint does not hold all the model's weights.
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
        self.pipeline, self.model, meta, self.device, self.cfg = get_ready(
            config, checkpoint, device, batch_size, InferencePipeline, 'image', default_scope='mmdet'
        )
        self.known_classes = self.pipeline.class_names(meta)

    @property
    def zero_shot(self) -> bool:
        """Whether the model takes any class names."""
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
            images: Files, folders (their images, sorted, also of folders inside), arrays ``(H, W, 3)`` uint8 RGB, or
                a list of those.
            classes: Names with commas between, or a list. A zero-shot model looks for these; a model of fixed classes
                reports no others. None: the classes in the zero-shot model's config, or all of a fixed model.
            score_thr: Lowest score that is reported.
            out_dir: Where images with boxes and ``detections.json`` are written; None writes nothing.
            skip_bad: Go on after an image that cannot be read; its result then has ``error`` in place of boxes.

        Returns:
            One dict an image, in order: ``file`` (None for an array), ``width``, ``height``, ``boxes`` ``[x1, y1, x2,
            y2]`` in pixels of the picture, ``labels`` (names) and ``scores``, from high to low; ``picture``, the drawn
            file, where one was written.

        Raises:
            UsageError: no images, classes that a model of fixed classes does not have, or an image that lies in
                the output folder, where its drawing could take its place.
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
        """``(file, image, prediction or error)`` of each image of a batch."""
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
            # a head may have more classes than the names that are known
            chosen = torch.tensor([label for label, name in enumerate(names) if name in reported])
            keep &= torch.isin(found.labels, chosen)
        found = found[keep]
        order = found.scores.argsort(descending=True, stable=True)
        # hundredths of a pixel; more digits would only look exact
        boxes = [[round(value, 2) for value in box] for box in found.bboxes[order].tolist()]
        labels = found.labels[order].tolist()
        return {
            'width': image.shape[1],
            'height': image.shape[0],
            'boxes': boxes,
            'labels': [names[label] if label < len(names) else str(label) for label in labels],
            'scores': [round(score, 4) for score in found.scores[order].tolist()],
        }
