"""From config and checkpoint to a model that is ready, and what the config says of the data it is for."""

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
    """The config, which must have a model and ``test_dataloader``; the checkpoint must be there.

    Args:
        config: the config, or its file.
        checkpoint: file or URL; None for none.
        kind: what is to be read, for messages, as in "image".

    Raises:
        UsageError: something is missing.
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
    """Build the model, load all its weights, and move it.

    Args:
        cfg: its ``model`` is built in the default scope that holds.
        checkpoint: file or URL with all weights; None keeps what ``init_cfg`` loads.
        device: None takes the GPU where there is one.

    Returns:
        the model in evaluation mode, the checkpoint's metadata, and the device.

    Raises:
        UsageError: there is no such device.
        ValueError: the checkpoint does not hold all the model's weights.
    """
    place = _usable_device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint is None:
        model.init_weights()
        meta: Mapping[str, Any] = {}
    else:
        meta = load_whole_model(model, checkpoint)
    return model.to(place).eval(), meta, place


def _usable_device(name: str) -> torch.device:
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA asserts
        raise UsageError(
            f'device {name!r} cannot be used ({str(error).splitlines()[0]}); give one that this machine has'
        ) from None
    return place


class TestData:
    """The test data of a config: its pipeline, and the names of its classes.

    Args:
        dataset: config of the test data; wrappers are gone through.
        kind: what is read, for messages, as in "image".

    Attributes:
        pipeline (list): configs of the transforms.

    Raises:
        UsageError: there is no pipeline.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, dataset: Mapping[str, Any], kind: str) -> None:
        while 'pipeline' not in dataset and 'dataset' in dataset:
            dataset = dataset['dataset']
        if not dataset.get('pipeline'):
            raise UsageError(f'test_dataloader.dataset has no pipeline, which says how to prepare a {kind}')
        self.dataset = dataset
        self.pipeline = list(dataset['pipeline'])
        # unscoped types are those of the config's default scope
        with DATASETS.switch_scope_and_registry(None) as registry:
            type_ = dataset['type']
            self.dataset_class = registry.get(type_) if isinstance(type_, str) else type_

    def class_names(self, meta: Mapping[str, Any]) -> list[str]:
        """Names of the classes that a model was trained on.

        Args:
            meta: of its checkpoint, whose ``dataset_meta`` comes first; then ``metainfo`` and ``classes`` of the data
                set in the config, then the class of the data set.

        Returns:
            the names; empty where nothing says them, and labels then go by their numbers.
        """
        # older checkpoints have CLASSES beside the rest
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
    """The class name of a transform's config, without its scope."""
    type_ = transform['type']
    return (type_ if isinstance(type_, str) else type_.__name__).rpartition('.')[2]
