"""Setup of inferencers from config and checkpoint: the model, the test pipeline and the class names."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import nn

from florence_mm.config.check import check_parts
from florence_mm.config.load import load_config
from florence_mm.config.pick import walk_steps
from florence_mm.errors import UsageError, shown
from florence_mm.language.class_names import KNOWN_CLASSES, load_class_names
from florence_mm.models.checkpoints.reading import read_checkpoint
from florence_mm.models.multimodal.protocol import VisionLanguage
from florence_mm.models.precision import check_precision, set_precision
from florence_mm.models.protocol import TwoTowerModel, class_head
from florence_mm.registry import DATASETS, MODELS
from florence_mm.utils.files import require_checkpoint
from florence_mm.utils.numbers import is_whole

from .model_weights import load_whole_state, zeros_for_random
from .named import resolve_model


def open_config(config: str | Path | Config, checkpoint: str | Path | None, kind: str, default_scope: str) -> Config:
    """Read a config; check its ``test_dataloader`` and ``model``, and that the checkpoint exists.

    Args:
        config: the config, or its file.
        checkpoint: file or URL, or None.
        kind: kind of the inputs for messages, as in "image".
        default_scope: package in which unscoped types are looked up if the config has no ``default_scope``.

    Raises:
        UsageError: one of them is missing, or wrong.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    loader = cfg.get('test_dataloader')
    if loader and not isinstance(loader, Mapping):
        raise UsageError(f'test_dataloader is {shown(loader)} in config {cfg.filename}; give a dict with dataset')
    if cfg.get('model') is None or (loader or {}).get('dataset') is None:
        raise UsageError(f'config {cfg.filename} has no model or no test_dataloader, which says how to read {kind}s')
    check_parts(cfg, 'model', 'data_preprocessor', default_scope=default_scope)
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
        UsageError: there is no such device.
        ValueError: the checkpoint lacks weights of the model.
    """
    place = usable_device(device)
    if checkpoint is None:
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        _init_weights(model)
        return _evaluating(model.to(place)), {}, place
    state, meta = read_checkpoint(checkpoint)
    _take_trained_answers(cfg.model, meta)
    with zeros_for_random():
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_whole_state(model, state, checkpoint, meta)
    return _evaluating(model.to(place)), meta, place


def _evaluating(model: nn.Module) -> nn.Module:
    model.eval()  # which backbones of mmpretrain answer with None
    return model


def _take_trained_answers(node: Any, meta: Mapping[str, Any]) -> None:
    """Replace a file of answers that is not there by the answers that the checkpoint was trained on."""
    trained = (meta.get('dataset_meta') or {}).get('answers')
    for part in walk_steps(node) if trained else ():
        if isinstance(part.get('answers'), str) and not Path(part['answers']).exists():
            part['answers'] = list(trained)


def _init_weights(model: nn.Module) -> None:
    """Initialize the weights, without mmengine's log of how each parameter was made."""
    logger = MMLogger.get_current_instance()

    def keep(record: logging.LogRecord) -> bool:
        return record.funcName != '_dump_init_info'

    logger.addFilter(keep)
    try:
        model.init_weights()
    finally:
        logger.removeFilter(keep)
    print_log(f'no checkpoint: the weights of {type(model).__name__} are those that its config makes', 'current')


def usable_device(name: str | None) -> torch.device:
    """The device of a name, by default the GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (AssertionError, RuntimeError, TypeError) as error:  # a torch without CUDA asserts
        raise UsageError(
            f'device {name!r} cannot be used ({str(error).splitlines()[0]}); give one that this machine has'
        ) from None
    return place


def check_count(name: str, value: Any) -> None:
    """Check that an argument is an integer of at least 1.

    Raises:
        UsageError: it is not.
    """
    if not is_whole(value) or value < 1:
        raise UsageError(f'{name} is {value!r}; give at least 1, a whole number')


def model_kind(model: nn.Module) -> str | None:
    """Name the kind of a model; None for a kind that only its predictions tell, such as a two-stage detector."""
    if isinstance(model, VisionLanguage):
        return 'vision-language model'
    if isinstance(model, TwoTowerModel):
        return 'two-tower model'
    head = class_head(model)
    return None if head is None else head.owner


def wrong_kind(cfg: Config, model: nn.Module, expected: str) -> UsageError:
    """Make the error for a config whose model is of another kind than ``expected``, as in "a detector"."""
    return UsageError(f'config {cfg.filename} is of a {type(model).__name__}; give one of {expected}')


class InferenceSetup(NamedTuple):
    """Model and test pipeline of an inferencer.

    Attributes:
        pipeline: the test pipeline of the config.
        model: the model with all its weights, in evaluation mode.
        meta: the metadata of the checkpoint.
        device: the device of the model.
        cfg: the config.
    """

    pipeline: Any
    model: nn.Module
    meta: Mapping[str, Any]
    device: torch.device
    cfg: Config


def set_up_inference(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    device: str | None,
    batch_size: int,
    make_pipeline: Callable[[Mapping[str, Any]], 'TestData'],
    kind: str,
    default_scope: str,
    precision: str = 'fp32',
) -> InferenceSetup:
    """Read a config and build its test pipeline and its model with all weights.

    Args:
        config: the config, its file, or the name of a model (:func:`~florence_mm.apis.list_models`).
        checkpoint: file or URL with all weights; None: those published for the name, or of a config the weights from
            ``init_cfg``.
        device: the device; None: the GPU if there is one.
        batch_size: inputs per batch.
        make_pipeline: function from the config of the test data set to its pipeline.
        kind: kind of the inputs for messages, as in "image".
        default_scope: package in which unscoped types are looked up if the config has no ``default_scope``.
        precision: as of :func:`~florence_mm.models.precision.set_precision`.

    Raises:
        UsageError: the config lacks a part, the checkpoint does not exist, ``batch_size`` is below 1, or the device has
            no such precision.
        ValueError: the checkpoint lacks weights of the model.
    """
    check_count('batch_size', batch_size)
    check_precision(precision, usable_device(device))  # before the model is looked for
    config, checkpoint = resolve_model(config, checkpoint)
    cfg = open_config(config, checkpoint, kind, default_scope)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or default_scope):
        pipeline = make_pipeline(cfg.test_dataloader.dataset)
        model, meta, place = ready_model(cfg, checkpoint, device)
        set_precision(model, precision, place)
        return InferenceSetup(pipeline, model, meta, place, cfg)


class TestData:
    """Pipeline and class names of a config's test data.

    Args:
        dataset: config of the test data set, which may be wrapped, or a concatenation, of which the first part counts.
        kind: kind of the inputs for messages, as in "image".

    Attributes:
        pipeline (list): configs of the transforms.

    Raises:
        UsageError: there is no pipeline.
    """

    __test__ = False  # not a test for pytest

    def __init__(self, dataset: Mapping[str, Any], kind: str) -> None:
        if not isinstance(dataset, Mapping):
            raise UsageError(f'test_dataloader.dataset is {shown(dataset)}; give a dict with type and pipeline')
        while 'pipeline' not in dataset and ('dataset' in dataset or dataset.get('datasets')):
            dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]  # all parts prepare alike
        if not dataset.get('pipeline'):
            raise UsageError(f'test_dataloader.dataset has no pipeline, which says how to prepare {kind}s')
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
