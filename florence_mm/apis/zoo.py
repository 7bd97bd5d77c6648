"""Models by name, with weights, preprocessing and class names in one call.

::

    from florence_mm import get_model, list_models

    list_models(task='zero-shot-classification')
    loaded = get_model('unicl_coswin-micro_1xb64-22e_digits')
    loaded.model.set_classes('seven, eight'.split(', '))
    (sample,) = loaded.model.test_step(loaded.preprocess('seven.png'))

The names are those of ``configs/*/metafile.yml``, see :mod:`florence_mm.config.metafiles`, and stand for a config in
every inferencer and tool. What models need is imported when one is loaded, so that names are looked up at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from florence_mm.config.metafiles import ModelEntry, is_model_name, list_models, model_entry
from florence_mm.errors import UsageError, shown

if TYPE_CHECKING:
    import torch

    from .loaded_model import LoadedModel

__all__ = ['LoadedModel', 'ModelEntry', 'from_pretrained', 'get_model', 'init_model', 'list_models', 'model_entry']


def __getattr__(name: str) -> Any:
    if name == 'LoadedModel':
        from .loaded_model import LoadedModel

        return LoadedModel
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def get_model(
    name: str, pretrained: bool | str | Path = True, device: 'str | torch.device | None' = None
) -> 'LoadedModel':
    """Load a model by its name.

    Args:
        name: a name of :func:`list_models`.
        pretrained: True: the published weights, downloaded once; False: random weights; or a checkpoint, file or URL.
        device: the device; None: the GPU if there is one.

    Raises:
        UsageError: there is no such model, it has no published weights, they cannot be had, or ``pretrained`` is none
            of the three; the sentence says what to do.
        ValueError: the checkpoint lacks weights of the model.
    """
    entry = model_entry(name)
    if not isinstance(pretrained, (bool, str, Path)) or not str(pretrained):
        raise UsageError(f'pretrained is {shown(pretrained)}; give True, False, or the file or URL of a checkpoint')
    from florence_mm.config.load import load_config

    from .loaded_model import load_model
    from .named import weights_file

    checkpoint = pretrained
    if isinstance(pretrained, bool):
        checkpoint = weights_file(entry) if pretrained else None
    return load_model(load_config(entry.config), checkpoint, device, entry.name, random=pretrained is False)


def init_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: 'str | torch.device | None' = None,
) -> 'LoadedModel':
    """Load a model from a config and a checkpoint.

    Args:
        config: a config, its file, or the name of a model.
        checkpoint: file or URL with all weights; None: those published for the name, or of a config the weights from
            ``init_cfg``.
        device: the device; None: the GPU if there is one.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no model.
        ValueError: the checkpoint lacks weights of the model.
    """
    name = model_entry(config).name if is_model_name(config) else None
    from florence_mm.config.load import load_config

    from .loaded_model import load_model
    from .named import resolve_model

    config, checkpoint = resolve_model(config, checkpoint)
    cfg = config if isinstance(config, Config) else load_config(config)
    return load_model(cfg, checkpoint, device, name or Path(cfg.filename or 'model').stem)


def from_pretrained(
    folder: str | Path, device: 'str | torch.device | None' = None, revision: str | None = None
) -> 'LoadedModel':
    """Load a model that :meth:`LoadedModel.save_pretrained` wrote, or that was pushed to the Hugging Face hub.

    Args:
        folder: the folder, or ``OWNER/REPO`` on the hub.
        device: the device; None: the GPU if there is one.
        revision: branch, tag or commit of a repository.

    Raises:
        UsageError: it is neither, or the repository cannot be had.
        DataError: a file is missing or damaged.
        ValueError: the weights are not those of the config.
    """
    from .hub_folder import read_folder
    from .loaded_model import load_model

    cfg, weights, name = read_folder(folder, revision)
    return load_model(cfg, weights, device, name)
