"""Models given by name in place of a config: their config file and the local file of their weights."""

from pathlib import Path
from urllib.parse import urlparse

from mmengine.config import Config

from florence_mm.config.metafiles import ModelEntry, is_model_name, model_entry
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.fetching import fetch
from florence_mm.models.checkpoints.publishing import check_published, find_published
from florence_mm.utils.home import published_folders

#: In place of a checkpoint on a command line: the published weights of the model.
PUBLISHED = '-'
#: Suffixes of checkpoints, by which they are told from inputs.
_WEIGHTS = ('.bin', '.ckpt', '.pt', '.pth', '.pyth', '.safetensors')


def resolve_model(
    config: str | Path | Config, checkpoint: str | Path | None
) -> tuple[str | Path | Config, str | Path | None]:
    """Replace the name of a model by its config file, and a missing checkpoint by the file of its weights.

    Args:
        config: a config, its file, or the name of a model.
        checkpoint: file or URL; None or ``'-'``: the published weights of a model given by name.

    Returns:
        config and checkpoint; None stays only beside a config that is no name.

    Raises:
        UsageError: there is no such model, it has no weights, or they cannot be had.
    """
    missing = checkpoint is None or str(checkpoint) == PUBLISHED
    if not is_model_name(config):
        if checkpoint is not None and missing:
            raise UsageError(f"checkpoint '-' is for a model given by name, and {config} is a config; name a file")
        return config, checkpoint
    entry = model_entry(config)
    return entry.config, weights_file(entry) if missing else checkpoint


def checkpoint_and_inputs(config: str, given: str | None, inputs: list[str]) -> tuple[str | Path, list[str]]:
    """Tell checkpoint and inputs of a command line apart: for a model given by name the checkpoint may be left out.

    Args:
        config: the first argument, a config file or the name of a model.
        given: the second argument, if there are three: a checkpoint, ``'-'``, or already an input.
        inputs: the other arguments.

    Returns:
        the file or URL of the checkpoint, and the inputs.

    Raises:
        UsageError: the config is a file and the checkpoint is left out, or see :func:`resolve_model`.
    """
    if not is_model_name(config):
        if given is None:
            raise UsageError(f'{config} is a config, which needs a checkpoint; give CONFIG CHECKPOINT and the inputs')
    elif given is not None and given != PUBLISHED and not urlparse(given).path.lower().endswith(_WEIGHTS):
        given, inputs = None, [given, *inputs]
    return resolve_model(config, given)[1], inputs


def from_anywhere(given: str | Path | None) -> str:
    """Write a config or checkpoint as found from any folder: files absolute, names of models and URLs as given."""
    return str(Path(given).absolute() if given is not None and Path(given).is_file() else given)


def weights_file(entry: ModelEntry) -> Path:
    """Local file of a model's published weights; it is downloaded first if it is not there.

    Raises:
        UsageError: the model has no weights, those of an embedded task were not published on this machine, or they
            cannot be downloaded.
        DataError: a file published on this machine is damaged.
    """
    weights = entry.weights
    if weights is None:
        raise UsageError(
            f'{entry.name} has no published weights; give a checkpoint, or take one of list_models(pretrained=True)'
        )
    if not weights.embedded:
        try:
            return fetch(weights.url, weights.sha256)
        except UsageError as error:
            page = f'; or take the file from {weights.source} and give it as the checkpoint' if weights.source else ''
            raise UsageError(f'{error}{page}') from error
    folders = published_folders()
    file = find_published(entry.name, folders)
    if file is None:
        raise UsageError(
            f'{entry.name} is not in {folders[0]}; `python tools/misc/publish_embedded.py {entry.name}` trains it on '
            'embedded data and puts it there, `make zoo` all of its kind'
        )
    return check_published(file)
