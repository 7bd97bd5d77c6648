"""From a command line to a runner; ``tools/train.py`` and ``tools/test.py`` are thin around it."""

import ast
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from .config_check import check_config, check_options
from .errors import UsageError
from .runner import FlorenceRunner


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, put command-line overrides on it and import its ``custom_imports``.

    Args:
        path (str): The file; ``pkg::path`` names a config inside an installed package.
        options (dict, optional): Dotted keys and values.

    Raises:
        UsageError: the file or one of its bases is missing or not readable, an override would create a key
            beside the one that was meant, or a module of ``custom_imports`` does not exist.
    """
    try:
        cfg = _read(str(path))
    except UsageError:
        raise
    except SyntaxError as error:
        raise UsageError(f'config {_unparsable(str(path))}, line {error.lineno}: {error.msg}') from error
    except Exception as error:
        text = str(error.args[0]) if error.args else ''
        raise UsageError(f'config {path} cannot be read: {type(error).__name__}: {text}') from error
    if options:
        check_options(cfg, options)
        cfg.merge_from_dict(dict(options))
    imports = cfg.get('custom_imports')
    if imports:
        try:
            import_modules_from_strings(**imports)
        except ImportError as error:
            # only a module that is not there is the config's fault; other errors are inside that module
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
        # get_config would try to install a package that is not there
        if importlib.util.find_spec(package) is None:
            raise UsageError(f'config {path}: no package {package} is installed; check the name')
        return get_config(path)
    if not Path(path).is_file():
        raise UsageError(f'config {path} does not exist; check the path')
    return Config.fromfile(path, import_custom_modules=False)


def _unparsable(path: str) -> str | None:
    """The file or its first base that is not Python; mmengine's error does not name it."""
    try:
        ast.parse(Path(path).read_text())
    except SyntaxError:
        return path
    bases = [Config._get_cfg_path(base, path)[0] for base in Config._get_base_files(path)]
    return next((found for base in bases if (found := _unparsable(base))), None)


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set where the run writes: the argument, else the config's ``work_dir``, else ``work_dirs/<config name>``.

    Raises:
        UsageError: the folder cannot be made or written to.
    """
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'work_dir {cfg.work_dir} cannot be made ({error.strerror}); choose another') from error
    if not os.access(cfg.work_dir, os.W_OK | os.X_OK):
        raise UsageError(f'work_dir {cfg.work_dir} cannot be written to; choose another or change its permissions')


def set_amp(cfg: Config, dtype: str) -> None:
    """Turn on automatic mixed precision, on CPU too.

    Args:
        cfg (Config): With an ``optim_wrapper``.
        dtype (str): 'bfloat16', or 'float16' with dynamic loss scaling, which needs a GPU.

    Raises:
        UsageError: the config's optimizer wrapper is of a class that has no mixed precision.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    type_ = str(wrapper.get('type', 'OptimWrapper')).rsplit('.', 1)[-1]
    if type_ not in ('OptimWrapper', 'AmpOptimWrapper', 'FlorenceAmpOptimWrapper'):
        raise UsageError(f'--amp cannot be put on optim_wrapper.type={type_!r}; set mixed precision in the config')
    cfg.optim_wrapper.type = 'florence_mm.FlorenceAmpOptimWrapper'
    cfg.optim_wrapper.dtype = dtype
    if dtype == 'float16':
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the real batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        UsageError: the config does not say which batch size its learning rate is for.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config, the batch size that its '
            'learning rate is for'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from a checkpoint, or with ``'auto'`` from the latest in the work folder.

    Raises:
        UsageError: the checkpoint does not exist.
    """
    if resume is None:
        return
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume
    if cfg.load_from is not None:
        require_checkpoint(cfg.load_from)


def require_checkpoint(path: str) -> None:
    """Raise a :class:`UsageError` where ``path`` is neither a file nor a URL."""
    if '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'checkpoint {path} does not exist; check the path')


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: :class:`FlorenceRunner`, or what its ``runner_type`` names."""
    if 'runner_type' not in cfg:
        return FlorenceRunner.from_cfg(cfg)
    check_config(cfg)
    return RUNNERS.build(cfg)
