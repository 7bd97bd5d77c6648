"""Models as folders in the form of the Hugging Face hub: config, weights, preprocessing and a model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from mmengine.config import Config
from torch import nn

from florence_mm.config.metafiles import model_entries
from florence_mm.config.pick import walk_steps
from florence_mm.config.registered import require_registered
from florence_mm.errors import DataError, UsageError
from florence_mm.language.answers import read_answers
from florence_mm.models.checkpoints.hub import hub_file
from florence_mm.models.checkpoints.reading import plain_meta
from florence_mm.models.checkpoints.writing import write_safetensors
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import is_offline
from florence_mm.utils.numbers import readable
from florence_mm.version import __version__

CONFIG, WEIGHTS, PREPROCESSING, CARD = 'config.json', 'model.safetensors', 'preprocessor_config.json', 'README.md'
_TUPLE = '__tuple__'  # JSON has none, and some transforms take no list for one
#: What is kept of the test data set: how an input is prepared, and what the classes are.
_OF_DATA = ('type', 'pipeline', 'metainfo', 'classes')
#: Metadata of a checkpoint that belong to its run or its file.
_OF_A_RUN = ('cfg', 'config', 'format')
#: Our task -> the hub's.
_PIPELINE_TAGS = {
    'classification': 'image-classification',
    'zero-shot-classification': 'zero-shot-image-classification',
    'detection': 'object-detection',
    'zero-shot-detection': 'zero-shot-object-detection',
    'video-classification': 'video-classification',
    'visual-question-answering': 'visual-question-answering',
    'captioning': 'image-to-text',
}


class SavedModel(Protocol):
    """What is saved of a model; :class:`~florence_mm.apis.loaded_model.LoadedModel` has it."""

    model: nn.Module
    cfg: Config
    class_names: list[str] | None
    name: str
    meta: Mapping[str, Any]


def save_folder(loaded: SavedModel, folder: str | Path) -> Path:
    """Write a model as a folder that :func:`read_folder` reads.

    Args:
        loaded: the model.
        folder: the folder; it is created. It gets ``config.json`` (the model), ``model.safetensors``,
            ``preprocessor_config.json`` (the test pipeline) and, unless there is one, ``README.md``.

    Raises:
        UsageError: a setting of the config is an object that JSON cannot hold.
    """
    folder = Path(folder)
    model = loaded.cfg.model.to_dict()
    _make_self_contained(model)
    dataset = (loaded.cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    config = {'library_name': 'florence_mm', 'florence_mm_version': __version__, 'name': loaded.name}
    config |= {'default_scope': loaded.cfg.get('default_scope', 'florence_mm'), 'model': model}
    data = {key: dataset[key] for key in _OF_DATA if key in dataset}
    written = {CONFIG: _to_json(config, CONFIG), PREPROCESSING: _to_json(data, PREPROCESSING)}
    meta = {
        key: value for key, value in plain_meta(dict(loaded.meta)).items() if key not in ('cfg', 'config', 'format')
    }
    if loaded.class_names:
        meta['dataset_meta'] = {**(meta.get('dataset_meta') or {}), 'classes': loaded.class_names}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, loaded.model.state_dict(), meta)
    for name, value in written.items():
        write_atomic(folder / name, json.dumps(value, indent=2) + '\n')
    if not (folder / CARD).exists():
        write_atomic(folder / CARD, _card(loaded))
    return folder


def read_folder(folder: str | Path, revision: str | None = None) -> tuple[Config, Path, str]:
    """Read a folder that :func:`save_folder` wrote, or such a repository of the hub.

    Nothing in it is executed: its files are JSON and safetensors.

    Args:
        folder: a folder, or ``OWNER/REPO`` if there is no such folder.
        revision: branch, tag or commit of a repository.

    Returns:
        the config with model and test data, the file of the weights, and the name of the model.

    Raises:
        UsageError: it is neither, the repository cannot be had, or a file names what is no registered class.
        DataError: a file is missing or damaged.
    """
    files = _files(folder, revision)
    config, data = _from_json(files[CONFIG]), _from_json(files[PREPROCESSING])
    if not isinstance(config.get('model'), dict):
        raise DataError(f'{files[CONFIG]} has no model; give a folder that save_pretrained wrote')
    for file, part in ((CONFIG, config['model']), (PREPROCESSING, data)):
        require_registered(part, str(files[file]))
    _check_steps(data, files[PREPROCESSING])
    cfg = {'default_scope': config.get('default_scope', 'florence_mm'), 'model': config['model']}
    if data:
        cfg['test_dataloader'] = {'dataset': data}
    name = str(config.get('name') or Path(folder).name)
    return Config(cfg, filename=str(files[CONFIG])), files[WEIGHTS], name


def push_folder(loaded: SavedModel, repository: str, private: bool | None, message: str, token: Any) -> str:
    """Upload a model to the hub; returns the address of the commit. See :meth:`LoadedModel.push_to_hub`."""
    import huggingface_hub

    if is_offline():
        raise UsageError(
            f'{repository} cannot be written while FLORENCE_MM_OFFLINE or HF_HUB_OFFLINE is 1; set both to 0'
        )
    with TemporaryDirectory(prefix='florence_mm_') as folder:
        save_folder(loaded, folder)
        api = huggingface_hub.HfApi(token=token)
        try:
            name = api.create_repo(repository, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=message))
        except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError, OSError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            advice = 'sign in with `hf auth login`, or check the name'
            raise UsageError(f'{repository} cannot be written on the hub ({said}); {advice}') from error


def _make_self_contained(model: dict) -> None:
    """Leave out checkpoints to begin with, and put answers in place of their file."""
    for part in walk_steps(model):
        if isinstance(part.get('init_cfg'), Mapping) and part['init_cfg'].get('checkpoint'):
            part['init_cfg'] = None
        if isinstance(part.get('answers'), str):
            part['answers'] = read_answers(part['answers'])


def _to_json(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item, f'{where}: {key}') for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [_to_json(item, where) for item in value]}
    if isinstance(value, list):
        return [_to_json(item, where) for item in value]
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise UsageError(f'{where} is {value!r}, which a JSON file cannot hold; give it as text, number, list or dict')


def _from_json(file: Path) -> dict[str, Any]:
    def restored(value: dict) -> Any:
        is_tuple = value.keys() == {_TUPLE} and isinstance(value[_TUPLE], list)
        return tuple(value[_TUPLE]) if is_tuple else value

    try:
        found = json.loads(file.read_text(encoding='utf-8'), object_hook=restored)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{file} is not JSON ({error}); write the folder again with save_pretrained') from None
    if not isinstance(found, dict):
        raise DataError(f'{file} holds a {type(found).__name__}, not settings; write the folder again')
    return found


def _check_steps(data: Mapping[str, Any], file: Path) -> None:
    """Check that the pipeline is a list of transforms."""
    steps = data.get('pipeline', [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) and 'type' in step for step in steps):
        raise DataError(f'{file} has a pipeline that is no list of transforms; write the folder again')


def _files(folder: str | Path, revision: str | None) -> dict[str, Path]:
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise UsageError(f'{folder!r} is given as a folder; give its path, or OWNER/REPO on the hub')
    names = (CONFIG, PREPROCESSING, WEIGHTS)
    if Path(folder).is_dir():
        files = {name: Path(folder) / name for name in names}
        for file in files.values():
            if not file.is_file():
                raise DataError(f'{file} does not exist; give a folder that save_pretrained wrote')
        return files
    if str(folder).count('/') != 1 or str(folder).startswith(('.', '/', '~')):
        raise UsageError(f'{folder} is neither a folder nor OWNER/REPO on the hub; correct the path')
    end = f'@{revision}' if revision else ''
    return {name: hub_file(f'hf://{folder}/{name}{end}') for name in names}


def _card(loaded: SavedModel) -> str:
    entry = model_entries().get(loaded.name)
    head = ['library_name: florence_mm', 'tags: [florence, coswin]']
    if entry is not None and entry.task in _PIPELINE_TAGS:
        head.append(f'pipeline_tag: {_PIPELINE_TAGS[entry.task]}')
    if entry is not None and entry.weights is not None and entry.weights.licence:
        head.append(f'license: {entry.weights.licence.lower()}')
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    lines = [f'# {loaded.name}', '', f'{type(loaded.model).__name__}, {readable(parameters)} parameters.', '']
    lines += ['```python', 'from florence_mm import from_pretrained', '', "loaded = from_pretrained('OWNER/REPO')"]
    lines += ["loaded.model.test_step(loaded.preprocess('input'))", '```', '']
    for result in entry.results if entry is not None else ():
        scores = ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        lines.append(f'- {result["Dataset"]}: {scores}')
    return '\n'.join(['---', *head, '---', '', *lines]).rstrip() + '\n'
