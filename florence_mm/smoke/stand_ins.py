"""Registry of generators, functions that generate data in place of a data set of some type."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from florence_mm.errors import UsageError
from florence_mm.moved import moved_names

NUM_SAMPLES = 4

#: Function ``(config, folder, number of samples) -> config`` that writes data and returns the config to read it.
Generator = Callable[[dict, Path, int], dict]
GENERATORS: dict[str, Generator] = {}

_FILES = ('ann_file', 'data_root', 'data_prefix', 'img_prefix', 'root')
_WRAPPED = ('dataset', 'datasets', 'support')

__getattr__ = moved_names(__name__, {'generated': f'{__name__}:generate'})


def register_smoke_data(*types: str) -> Callable[[Generator], Generator]:
    """Decorator that registers a generator for data sets of these types; scopes of types are ignored."""

    def register(generator: Generator) -> Generator:
        GENERATORS.update(dict.fromkeys(types, generator))
        return generator

    return register


def add_keys(dataset: Any, type_: str, keys: Mapping[str, Any], unless: str | None = None) -> Any:
    """Add keys to the configs of all data sets of a type, also inside wrappers; their generator removes them again.

    Args:
        dataset (dict or list): Config of the data set, which may be wrapped.
        type_ (str): Name of the class, without scope.
        keys (Mapping): The keys and their values.
        unless (str, optional): An argument of the data set; if it is true, no keys are added.
    """
    if isinstance(dataset, (list, tuple)):
        return [add_keys(item, type_, keys, unless) for item in dataset]
    if not isinstance(dataset, Mapping):
        return dataset
    changed = {
        key: add_keys(value, type_, keys, unless) if key in _WRAPPED else value for key, value in dataset.items()
    }
    if str(dataset.get('type')).rsplit('.', 1)[-1] == type_ and not dataset.get(unless):
        changed.update(keys)
    return changed


def generate(dataset: dict, folder: Path, path: str) -> dict:
    """Generate data in place of a data set, and return its config; one that reads no files is returned unchanged.

    Args:
        dataset (dict): Config of the data set, which may be wrapped.
        folder (Path): Folder for the data.
        path (str): Position in the config, for messages.

    Raises:
        UsageError: the data set reads files, and its type has no registered generator.
    """
    type_ = dataset['type'] if isinstance(dataset['type'], str) else dataset['type'].__name__
    generator = GENERATORS.get(type_.rsplit('.', 1)[-1])
    if generator is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return generator(dict(dataset), folder, NUM_SAMPLES)
    wrapped = [key for key in _WRAPPED if isinstance(dataset.get(key), (dict, list, tuple))]
    if wrapped:
        dataset = dict(dataset)
        for key in wrapped:
            inner = dataset[key]
            if isinstance(inner, dict):
                # each in a folder of its own, if there are several
                own = folder / key if len(wrapped) > 1 else folder
                dataset[key] = generate(inner, own, f'{path}.{key}')
            else:
                dataset[key] = [generate(item, folder / str(i), f'{path}.{key}.{i}') for i, item in enumerate(inner)]
        return dataset
    if any(dataset.get(key) for key in _FILES):
        raise UsageError(
            f'{path}: --smoke has no generated data for the type {type_!r}; register some with '
            'florence_mm.smoke.register_smoke_data'
        )
    return dataset
