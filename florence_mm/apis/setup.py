"""Setup of inferencers from config and checkpoint: the model, the test pipeline and the class names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import nn

from florence_mm.config.load import load_config
from florence_mm.engine.launch import require_checkpoint
from florence_mm.errors import UsageError
from florence_mm.language.class_names import KNOWN_CLASSES, load_class_names
from florence_mm.registry import DATASETS, MODELS

from .model_weights import load_whole_model


def open_config(config: str | Path | Config, checkpoint: str | Path | None, kind: str) -> Config:
    """Read a config and check that it has a model and ``test_dataloader``, and that the checkpoint exists.

    Args:
        config: the config, or its file.
        checkpoint: file or URL, or None.
        kind: kind of the inputs for messages, as in "image".

    Raises:
        UsageError: one of them is missing.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    if cfg.get('model') is None or (cfg.get('test_dataloader') or {}).get('dataset') is None:
        raise UsageError(f'config {cfg.filename} has no model or no test_dataloader, which says how to read a {kind}')
    if checkpoint is not None:
        require_checkpoint(str(checkpoint))
    return cfg


def ready_model(
    cfg: Config, checkpoint: str | Path | None, device: str | None
) -> tuple[nn.Module, Mapping[str, Any], torch.device]:
    """Build the model, load all its weights, and move it to a device.

    Args:
        cfg: the config, whose ``model`` is built in the current default scope.
        checkpoint: file or URL with all weights; None: weights from ``init_cfg``.
        device: the device; None: the GPU if there is one.

    Returns:
        the model in evaluation mode, the metadata of the checkpoint, and the device.

    Raises:
        ValueError: the checkpoint lacks weights of the model.
    """
    place = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint is None:
        model.init_weights()
        meta: Mapping[str, Any] = {}
    else:
        meta = load_whole_model(model, checkpoint)
    return model.to(place).eval(), meta, place


class TestData:
    """Pipeline and class names of a config's test data.

    Args:
        dataset: config of the test data set, which may be wrapped.
        kind: kind of the inputs for messages, as in "image".

    Attributes:
        pipeline (list): configs of the transforms.

    Raises:
        UsageError: there is no pipeline.
    """

    __test__ = False  # not a test for pytest

    def __init__(self, dataset: Mapping[str, Any], kind: str) -> None:
        while 'pipeline' not in dataset and 'dataset' in dataset:
            dataset = dataset['dataset']
        if not dataset.get('pipeline'):
            raise UsageError(f'test_dataloader.dataset has no pipeline, which says how to prepare a {kind}')
        self.dataset = dataset
        self.pipeline = list(dataset['pipeline'])
        # unscoped types are looked up in the config's default scope
        with DATASETS.switch_scope_and_registry(None) as registry:
            type_ = dataset['type']
            self.dataset_class = registry.get(type_) if isinstance(type_, str) else type_

    def class_names(self, meta: Mapping[str, Any]) -> list[str]:
        """Find the names of the classes that a model was trained on.

        Args:
            meta: metadata of its checkpoint. Sources in order: its ``dataset_meta``; ``metainfo`` and ``classes`` of
                the data set's config; the class of the data set.

        Returns:
            the names; empty if they are unknown, and labels are then shown as numbers.
        """
        # older checkpoints have CLASSES directly in the metadata
        trained = {str(key).lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
        given = self.dataset.get('metainfo') or {}
        for source in (trained, given, self.dataset, getattr(self.dataset_class, 'METAINFO', {})):
            classes = source.get('classes')
            if isinstance(classes, str) and (classes in KNOWN_CLASSES or Path(classes).is_file()):
                classes = load_class_names(classes)
            if isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes):
                return [str(name) for name in classes]
        return []


def transform_name(transform: Mapping[str, Any]) -> str:
    """Class name of a transform's config, without scope."""
    type_ = transform['type']
    return (type_ if isinstance(type_, str) else type_.__name__).rpartition('.')[2]
