"""The towers of a model as curation uses them: pictures and texts to features that can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from florence_mm.errors import UsageError
from florence_mm.models.protocol import TwoTowerModel

from .embedding import fingerprint
from .zoo import init_model


@dataclass(frozen=True)
class MakeTowers:
    """Load a two-tower model in each process that curates; the attributes say which.

    Attributes:
        model: name of a model, or its config file.
        checkpoint: its weights; None: those published for the name.
        device: where it computes; None: the GPU if there is one.
    """

    model: str
    checkpoint: str | None = None
    device: str | None = None

    def __call__(self) -> 'Towers':
        """Load the model; on a CPU it computes with one thread, as there is a process for each core."""
        torch.set_num_threads(1)
        return Towers(self.model, self.checkpoint, self.device)


class Towers:
    """A two-tower model and how its pictures are prepared (:class:`florence_mm.curation.stage_a.Embed`).

    Args:
        model (str): Name of a model, or its config file.
        checkpoint (str | None): Its weights; None: those published for the name.
        device (str | None): Where it computes; None: the GPU if there is one.

    Attributes:
        name (str): Digest of weights, settings and preparation.
        least (int): Pixels that the shorter side of a picture should have.
        width (int): Of the features.

    Raises:
        UsageError: the model does not embed pictures and texts in one space, or is for videos.
    """

    def __init__(self, model: str, checkpoint: str | None = None, device: str | None = None) -> None:
        self._loaded = init_model(model, checkpoint, device)
        if not isinstance(self._loaded.model, TwoTowerModel):
            raise UsageError(f'{model} does not compare pictures and texts; name a model such as UniCL')
        probe = self.prepare(np.zeros((512, 512, 3), np.uint8))
        if probe['inputs'].dim() != 3:
            raise UsageError(f'{model} is for videos; name a model of pictures')
        self.name = fingerprint(self._loaded.model, self._loaded.cfg, self._loaded.pipeline.pipeline)
        # pipelines that resize to more and crop, such as 256 for 224, then enlarge by that much at most
        self.least = min(probe['inputs'].shape[-2:])
        self.width = self([probe], ['a picture'])[0].shape[1]

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """Prepare a picture ``(H, W, 3)`` uint8 RGB by the model's test pipeline."""
        if self._loaded.pipeline is None:
            raise UsageError(f'{self._loaded.name} has no test_dataloader, which says how to prepare pictures')
        with DefaultScope.overwrite_default_scope('florence_mm'):
            return self._loaded.pipeline(image)

    @torch.no_grad()
    def __call__(self, images: Sequence[dict[str, Any]], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed prepared pictures and texts: two arrays ``(N, D)`` float32, L2-normalised; values may be NaN."""
        model = self._loaded.model
        inputs = model.data_preprocessor(pseudo_collate(list(images)), False)['inputs']
        found = model.extract_image_feat(inputs), model.extract_text_feat(list(texts))
        return tuple(one.float().cpu().numpy() for one in found)
