"""Reading a config file, with command-line overrides and ``custom_imports``."""

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import import_modules_from_strings

from florence_mm.errors import UsageError

from .bases import config_files, is_pure_python
from .merge import check_options, merge_options
from .metafiles import is_model_name, model_entry
from .placeholders import check_placeholders
from .time_limit import time_limit

#: Seconds that the files of a config may run.
TIME_LIMIT = 60.0


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, apply command-line overrides and import its ``custom_imports``.

    Args:
        path (str): The file; ``pkg::path`` names a config inside an installed package, and the name of a model
            (:func:`~florence_mm.config.metafiles.list_models`) its config.
        options (dict, optional): Dotted keys and values (:func:`~florence_mm.config.merge.merge_options`).

    Raises:
        UsageError: the file or one of its bases is missing, unreadable, empty, does not end, or changes a step that its
            base lacks; a text still holds ``{{ }}``; an override has a misspelt key; or a module of ``custom_imports``
            does not exist.
    """
    if is_model_name(path):
        path = model_entry(path).config
    cfg = read_config(path)
    if not cfg._cfg_dict:
        raise UsageError(f'config {path} is empty; write the settings of a run into it, or check the path')
    check_placeholders(path, config_files(path) if '::' not in str(path) else [], cfg)
    if options:
        check_options(cfg, options)
        merge_options(cfg, options)
    if cfg.get('custom_imports'):
        _import_modules(path, cfg.custom_imports)
    return cfg


def read_config(path: str | Path) -> Config:
    """Read a config file with its bases, and nothing else.

    Raises:
        UsageError: the file or one of its bases is missing or unreadable, or does not end.
    """
    try:
        with time_limit(TIME_LIMIT):
            return _read(str(path))
    except UsageError as error:
        raise UsageError(_where(error) + str(error)) from error
    except TimeoutError as error:
        raise UsageError(
            f'config {path} is {error} (at {_last_line(error)}); a config only sets values, so take what runs so long '
            'out of it'
        ) from error
    except SystemExit as error:
        raise UsageError(f'config {path} ends the program (at {_last_line(error)}); take the exit out of it') from error
    except Exception as error:
        text = ' '.join(str(error.args[0]).split()) if error.args else ''
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, KeyError) and any(frame.name == '_substitute_base_vars' for frame in frames):
            raise UsageError(f'config {path}: {{{{_base_}}}} asks for {text!r}, which its bases do not set') from error
        place = f' ({_last_line(error)})' if frames[-1].name == '<module>' else ''
        raise UsageError(f'config {path} cannot be read: {type(error).__name__}: {text}{place}') from error


def _read(path: str) -> Config:
    if '::' in path:
        package = path.split('::', 1)[0]
        # get_config would try to install a missing package
        if importlib.util.find_spec(package) is None:
            raise UsageError(f'config {path}: no package {package} is installed; check the name')
        return get_config(path)
    config_files(path)
    return Config.fromfile(path, import_custom_modules=False, lazy_import=is_pure_python(path))


def _import_modules(path: str | Path, imports: Any) -> None:
    """Import the modules of ``custom_imports``; the current folder and the config's are searched last."""
    modules = imports.get('imports') if isinstance(imports, Mapping) else None
    whole = isinstance(modules, str) or (
        isinstance(modules, (list, tuple)) and all(isinstance(name, str) for name in modules)
    )
    if not whole or set(imports) - {'imports', 'allow_failed_imports'}:
        raise UsageError(
            f"custom_imports of {path} is {imports!r}; expected dict(imports=['module'], allow_failed_imports=False)"
        )
    for folder in (str(Path.cwd()), str(Path(str(path)).resolve().parent)):
        # a script has its own folder in the path, not the current one; data-loading workers inherit the path
        if '::' not in str(path) and folder not in sys.path:
            sys.path.append(folder)
    try:
        import_modules_from_strings(**imports)
    except ImportError as error:
        # only a missing module is the config's fault; other errors are those of the module
        if not isinstance(error.__cause__ or error.__context__ or error, ModuleNotFoundError):
            raise
        raise UsageError(
            f'custom_imports of {path}: {error}; the current folder, the folder of the config and PYTHONPATH were '
            'searched, so check the name or add the folder that holds the module to PYTHONPATH'
        ) from error


def _where(error: Exception) -> str:
    """Name file and line of the config that called the function of ours that raised ``error``; '' if none did."""
    # mmengine runs a config's text as a module, so the frame has the config's file name
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>']
    return f'config {lines[-1].filename}, line {lines[-1].lineno}: ' if lines else ''


def _last_line(error: BaseException) -> str:
    """File and line of the config that ran when ``error`` was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if frame.name == '<module>'] or frames
    return f'{lines[-1].filename}, line {lines[-1].lineno}'
