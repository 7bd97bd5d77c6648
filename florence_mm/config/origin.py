"""Origin of a config's values: the file of the inheritance tree that sets each."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError

from .bases import is_pure_python
from .load import read_config
from .merge import merge_options

COMMAND_LINE = 'command line'


def flatten(value: Any, path: str = '') -> dict[str, Any]:
    """Map dotted paths to the leaves of a config; lists without dicts are leaves, as inheritance replaces them whole.

    >>> flatten({'optimizer': {'lr': 0.1, 'betas': [0.9, 0.98]}, 'hooks': [{'type': 'EMAHook'}]})
    {'optimizer.lr': 0.1, 'optimizer.betas': [0.9, 0.98], 'hooks.0.type': 'EMAHook'}
    """
    if isinstance(value, Mapping) and value:
        items = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        items = enumerate(value)
    else:
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= flatten(item, f'{path}.{key}' if path else str(key))
    return leaves


def origins(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, tuple[Any, str]]:
    """Find the file that sets each leaf of a config.

    If a file repeats a value of its base, the origin is the base.

    Args:
        path (str or Path): A text config; its bases are followed, also ``pkg::`` ones.
        options (dict, optional): Command-line overrides.

    Returns:
        dict[str, tuple[Any, str]]: value and file (or ``'command line'``) by dotted path.

    Raises:
        UsageError: the config is in pure Python style, which imports its bases as modules.
    """
    filename = str(path)
    if is_pure_python(filename):
        raise UsageError(f'{filename} imports its bases as Python modules; --origin follows _base_ = [...] only')
    found = {key: (value, _origin(filename, key, value)) for key, value in _leaves(filename).items()}
    if options:
        cfg = read_config(filename)
        merge_options(cfg, options)
        for key, value in flatten(cfg._cfg_dict).items():
            if key not in found or found[key][0] != value:
                found[key] = value, COMMAND_LINE
        found = {key: found[key] for key in flatten(cfg._cfg_dict)}
    return found


@functools.cache
def _leaves(filename: str) -> dict[str, Any]:
    return flatten(read_config(filename)._cfg_dict)


@functools.cache
def _bases(filename: str) -> tuple[str, ...]:
    return tuple(Config._get_cfg_path(base, filename)[0] for base in Config._get_base_files(filename))


def _origin(filename: str, key: str, value: Any) -> str:
    for base in _bases(filename):
        leaves = _leaves(base)
        if key in leaves and leaves[key] == value:
            return _origin(base, key, value)
    return filename
