"""A model that was loaded with its weights, and how its inputs are prepared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn

from florence_mm.config.check import check_parts
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.errors import DataError, UsageError, shown
from florence_mm.models.protocol import ZeroShotModel

from .base import InferencePipeline, read_picture
from .hub_folder import push_folder, save_folder
from .inputs import Picture
from .setup import ready_model
from .video_inputs import VideoPipeline, any_pipeline, open_file, split_windows

_SCOPE = 'florence_mm'


@dataclass
class LoadedModel:
    """A model with its weights, and what its inputs and outputs are.

    Attributes:
        model: the model, in evaluation mode.
        cfg: its config.
        pipeline: the test pipeline of its config, for images (:class:`InferencePipeline`) or videos
            (:class:`VideoPipeline`); None if the config has no test data.
        class_names: names of the classes that it was trained on or that are set; None if they are unknown.
        device: the device of the model.
        name: name of the model, or of its config.
        meta: metadata of the checkpoint.
    """

    model: nn.Module
    cfg: Config
    pipeline: InferencePipeline | VideoPipeline | None
    class_names: list[str] | None
    device: torch.device
    name: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        """Prepare images, or videos, as a batch for ``model.test_step``.

        Args:
            inputs: a file, an array ``(H, W, 3)`` uint8 RGB, a PIL image, or a list of those; of a video model, files.

        Returns:
            ``inputs`` and ``data_samples``, lists with an item each.

        Raises:
            UsageError: the config has no test pipeline, or nothing was given.
            DataError: a file is missing or damaged, or an array has another shape or type.
        """
        if self.pipeline is None:
            raise UsageError(f'{self.name} has no test_dataloader, which says how to prepare its inputs')
        items = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if not items:
            raise UsageError('nothing was given to prepare; give a file or an array, or a list of those')
        with DefaultScope.overwrite_default_scope(self.cfg.get('default_scope') or _SCOPE):
            if isinstance(self.pipeline, VideoPipeline):
                return pseudo_collate([self._prepare_video(item) for item in items])
            return pseudo_collate([self._prepare_image(item) for item in items])

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config, weights, preprocessing and a model card, which :func:`from_pretrained` reads.

        Args:
            folder: the folder; it is created. A ``README.md`` that is there is kept.

        Raises:
            UsageError: a setting of the config is an object that JSON cannot hold.
        """
        return save_folder(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        commit_message: str = 'Upload of a florence_mm model',
        token: str | bool | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub; returns the address of the commit.

        Args:
            repo_id: ``OWNER/REPO``; it is created if it does not exist.
            private: whether a new repository is private; None: as the owner has set.
            commit_message: message of the commit.
            token: token of the hub; None: the one that ``hf auth login`` kept.

        Raises:
            UsageError: the hub refuses it, or downloads and uploads are switched off.
        """
        return push_folder(self, repo_id, private, commit_message, token)

    def _prepare_image(self, image: Picture) -> dict[str, Any]:
        file = image if isinstance(image, (str, Path)) else None
        return self.pipeline(read_picture(image), file)

    def _prepare_video(self, video: str | Path) -> dict[str, Any]:
        if not isinstance(video, (str, Path)):
            raise DataError(f'{shown(video)} is given as a video; give the path of its file')
        reader = open_file(video, 'pyav')
        try:
            return self.pipeline(next(split_windows(reader, None, None)))[0]
        finally:
            reader.close()


def load_model(
    cfg: Config,
    checkpoint: str | Path | None,
    device: str | torch.device | None,
    name: str,
    random: bool = False,
) -> LoadedModel:
    """Build the model of a config with its weights, and its test pipeline.

    Args:
        cfg: the config.
        checkpoint: file or URL with all weights; None: weights from ``init_cfg``.
        device: the device; None: the GPU if there is one.
        name: name of the model.
        random: leave out the checkpoints that ``init_cfg`` and ``pretrained`` name, for random weights.

    Raises:
        UsageError: the config has no model, or a part is wrong.
        ValueError: the checkpoint lacks weights of the model.
    """
    if cfg.get('model') is None:
        raise UsageError(f'config {cfg.filename} has no model; give one that has')
    check_parts(cfg, 'model', 'data_preprocessor', default_scope=_SCOPE)
    if random and (left_out := drop_pretrained(cfg.model, 'model')):
        print_log(f'{name}: random weights instead of {", ".join(left_out)}', 'current')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or _SCOPE):
        pipeline = _test_pipeline(cfg)
        model, meta, place = ready_model(cfg, checkpoint, None if device is None else str(device))
    names: Sequence[str] = pipeline.class_names(meta) if pipeline is not None else ()
    if isinstance(model, ZeroShotModel) and model.class_names:
        names = model.class_names
    return LoadedModel(model, cfg, pipeline, list(names) or None, place, name, meta)


def _test_pipeline(cfg: Config) -> InferencePipeline | VideoPipeline | None:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    return None if dataset is None else any_pipeline(dataset)
