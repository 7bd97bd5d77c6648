"""Reading a config file, with command-line overrides and ``custom_imports``."""

import ast
import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import import_modules_from_strings

from florence_mm.errors import UsageError

from .check import check_options
from .merge import merge_options


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, apply command-line overrides and import its ``custom_imports``.

    Args:
        path (str): The file; ``pkg::path`` names a config inside an installed package.
        options (dict, optional): Dotted keys and values (:func:`~florence_mm.config.merge.merge_options`).

    Raises:
        UsageError: the file or one of its bases is missing, unreadable or changes a step that its base lacks; an
            override has a misspelt key; or a module of ``custom_imports`` does not exist.
    """
    try:
        cfg = _read(str(path))
    except UsageError as error:
        raise UsageError(_where(error) + str(error)) from error
    except SyntaxError as error:
        raise UsageError(f'config {_unparsable(str(path))}, line {error.lineno}: {error.msg}') from error
    except Exception as error:
        text = str(error.args[0]) if error.args else ''
        raise UsageError(f'config {path} cannot be read: {type(error).__name__}: {text}') from error
    if options:
        check_options(cfg, options)
        merge_options(cfg, options)
    imports = cfg.get('custom_imports')
    if imports:
        try:
            import_modules_from_strings(**imports)
        except ImportError as error:
            # only a missing module is the config's fault; other errors are those of the module
            if not isinstance(error.__cause__ or error.__context__ or error, ModuleNotFoundError):
                raise
            raise UsageError(
                f'custom_imports of {path}: {error}; run from the folder that holds the module, or put that folder '
                'into PYTHONPATH'
            ) from error
    return cfg


def _read(path: str) -> Config:
    if '::' in path:
        package = path.split('::', 1)[0]
        # get_config would try to install a missing package
        if importlib.util.find_spec(package) is None:
            raise UsageError(f'config {path}: no package {package} is installed; check the name')
        return get_config(path)
    if not Path(path).is_file():
        raise UsageError(f'config {path} does not exist; check the path')
    return Config.fromfile(path, import_custom_modules=False)


def _where(error: Exception) -> str:
    """Name file and line of the config that called the function of ours that raised ``error``; '' if none did."""
    # mmengine runs a config's text as a module, so the frame has the config's file name
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>']
    return f'config {lines[-1].filename}, line {lines[-1].lineno}: ' if lines else ''


def _unparsable(path: str) -> str | None:
    """Find the file, or its first base, that is not valid Python, as mmengine's error does not name it."""
    try:
        ast.parse(Path(path).read_text())
    except SyntaxError:
        return path
    bases = [Config._get_cfg_path(base, path)[0] for base in Config._get_base_files(path)]
    return next((found for base in bases if (found := _unparsable(base))), None)
