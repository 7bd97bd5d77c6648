"""Options of ``tools/train.py`` and ``tools/test.py`` applied to a config, and its runner."""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from florence_mm.config.check import check_whole_config
from florence_mm.config.merge import section
from florence_mm.errors import UsageError
from florence_mm.moved import moved_names
from florence_mm.utils.files import require_checkpoint, write_atomic  # the first is of all that start runs, too
from florence_mm.utils.json_files import read_json

from .changed_settings import PLACES, changed_keys
from .checkpointing import find_latest
from .runner import FlorenceRunner

#: File in the folder of a run with the config that it was begun with.
_BEGUN_WITH = 'begun_with.py'

__getattr__ = moved_names(__name__, {'load_config': 'florence_mm.config.load'})


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set the work folder: the argument, else the config's ``work_dir``, else ``work_dirs/<config name>``.

    Raises:
        UsageError: the folder cannot be created or written to.
    """
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'work_dir {cfg.work_dir} cannot be made ({error.strerror}); choose another') from error
    if not os.access(cfg.work_dir, os.W_OK | os.X_OK):
        raise UsageError(f'work_dir {cfg.work_dir} cannot be written to; choose another or change its permissions')


def set_amp(cfg: Config, dtype: str) -> None:
    """Turn on automatic mixed precision, also on the CPU.

    Args:
        cfg (Config): A config with ``optim_wrapper``; it is changed.
        dtype (str): 'bfloat16', or 'float16' with dynamic loss scaling, which needs a GPU.

    Raises:
        UsageError: the optimizer wrapper's type has no mixed precision.
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
    """Scale the learning rate by the actual batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        UsageError: the config has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config, the batch size that its '
            'learning rate is for'
        )
    cfg.auto_scale_lr.enable = True


def set_seed(cfg: Config, seed: int) -> None:
    """Set the seed of weights, data order, augmentation and dropout, also in a config without ``randomness``."""
    section(cfg, 'randomness')['seed'] = seed


def set_resume(cfg: Config, resume: str | None) -> None:
    """Set the checkpoint to resume from; ``'auto'``: the latest in the work folder.

    A work folder without one begins with the weights of the config's ``load_from``, as it does without ``--resume``.

    Raises:
        UsageError: the checkpoint does not exist.
    """
    if resume is None:
        return
    if resume == 'auto' and cfg.get('load_from') and find_latest(cfg.work_dir) is None:
        print_log(f'{cfg.work_dir} holds no checkpoint to resume; the run begins with {cfg.load_from}', 'current')
        return
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume
    if cfg.load_from is not None:
        require_checkpoint(cfg.load_from)


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config: :class:`FlorenceRunner`, or the one named by ``runner_type``."""
    if 'runner_type' not in cfg:
        return FlorenceRunner.from_cfg(cfg)
    check_whole_config(cfg)
    return RUNNERS.build(cfg)


def runner_in(cfg: Config, work_dir: str | Path, seed: int) -> Runner:
    """Make the runner of a config in a folder, which goes on from the latest checkpoint there.

    Args:
        cfg: the config, which is changed.
        work_dir: the folder.
        seed: of the run.

    Raises:
        UsageError: the folder holds a run of another config.
    """
    set_work_dir(cfg, str(work_dir))
    _require_same(cfg, Path(work_dir) / _BEGUN_WITH)
    set_seed(cfg, seed)
    set_resume(cfg, 'auto')
    return build_runner(cfg)


def train_and_test(cfg: Config, work_dir: str | Path, seed: int) -> dict[str, float]:
    """Train and test a config in a folder, unless that is done, and return the metrics of the test.

    Args:
        cfg, work_dir, seed: see :func:`runner_in`.

    Raises:
        UsageError: the folder holds a run of another config.
    """
    scores = Path(work_dir) / 'test_metrics.json'
    if scores.exists():
        _require_same(cfg, Path(work_dir) / _BEGUN_WITH)
    else:
        runner = runner_in(cfg, work_dir, seed)
        runner.train()
        runner.test()
    return read_json(scores)['metrics']


def _require_same(cfg: Config, file: Path) -> None:
    """Check that a run that goes on, or is done, has the config that it was begun with, which is written down."""
    if not file.exists():
        write_atomic(file, cfg.pretty_text)
        return
    # a run that begins with other weights is another one
    changed = changed_keys(file.read_text(), cfg, tuple(place for place in PLACES if place != 'load_from'))
    if changed:
        more = f' and {len(changed) - 1} more' if len(changed) > 1 else ''
        raise UsageError(
            f'{file.parent} holds a run of another config ({changed[0]}{more}); name another folder, or remove this '
            'one to begin anew'
        )
