"""Settings of a config that do not fit together, each of which is right by itself.

All are compared as they are written; what depends on the size of a data set is seen by the runner.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from florence_mm.utils.numbers import is_finite

from .pick import type_name
from .roles import role_problems

_GROUPS = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_CHECKPOINT_HOOKS = ('CheckpointHook', 'AtomicCheckpointHook')
_ENDLESS = ('InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler')
#: Loops that count iterations and see one endless epoch.
_ITER_LOOPS = ('IterBasedTrainLoop', 'IterTrainLoop')


def pair_problems(cfg: Mapping) -> list[str]:
    """One sentence for each pair of settings of a config that do not fit together."""
    problems = list(_groups(cfg))
    for key in _LOADERS:
        if isinstance(cfg.get(key), Mapping):
            problems += _workers(key, cfg[key])
            problems += _endless(key, cfg[key])
    problems += _intervals(cfg.get('param_scheduler'))
    problems += _file_names(cfg)
    loop = _loop(cfg)
    if loop in _ITER_LOOPS:
        problems += _epochs_in_iterations(cfg, loop)
    problems += role_problems(cfg)
    return problems


def _groups(cfg: Mapping) -> Iterator[str]:
    for keys in _GROUPS:
        there = [key for key in keys if cfg.get(key) is not None]
        absent = [key for key in keys if cfg.get(key) is None]
        # without a model there is no run, and data sets alone may be looked at
        if there and absent and cfg.get('model') is not None:
            yield f'{absent[0]}: it is None, but {there[0]} is not; set all of {", ".join(keys)}, or all to None'


def _workers(path: str, loader: Mapping) -> Iterator[str]:
    if loader.get('num_workers', 0) != 0:
        return
    for key in ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context'):
        if loader.get(key):
            off = {'persistent_workers': 'False', 'timeout': '0'}.get(key, 'None')
            yield (
                f'{path}.{key}: {loader[key]!r} needs num_workers of at least 1, but {path}.num_workers is 0; set '
                f'{path}.{key}={off} too, or give workers'
            )


def _endless(path: str, loader: Mapping) -> Iterator[str]:
    """Samplers without an end, which a validation or test would wait for."""
    sampler = loader.get('sampler')
    if path == 'train_dataloader' or not isinstance(sampler, Mapping):
        return
    if type_name(sampler) in _ENDLESS or sampler.get('infinite') is True:
        yield (
            f'{path}.sampler: {type_name(sampler)} draws samples without end, so that the evaluation would never end; '
            'use DefaultSampler with shuffle=False'
        )


def _file_names(cfg: Mapping) -> Iterator[str]:
    """Checkpoints that replace each other, and of which the newest would be deleted as an old one."""
    for path, hook in _hooks(cfg):
        template = hook.get('filename_tmpl')
        if type_name(hook) not in _CHECKPOINT_HOOKS or not isinstance(template, str):
            continue
        try:
            differ = template.format(1) != template.format(2)
        except (IndexError, KeyError, ValueError):
            differ = False
        if not differ:
            yield f'{path}.filename_tmpl: {template!r} names all checkpoints alike; give it one {{}}'


def _intervals(schedulers: Any) -> Iterator[str]:
    """Schedules that end before they begin."""
    for path, schedule in _schedules(schedulers, 'param_scheduler'):
        begin, end = schedule.get('begin', 0), schedule.get('end')
        if is_finite(begin) and is_finite(end) and end <= begin:
            yield f'{path}: end is {end}, not after begin, which is {begin}; give a later end'


def _epochs_in_iterations(cfg: Mapping, loop: str) -> Iterator[str]:
    """Hooks and schedules that wait for the end of an epoch, which a loop of iterations never reaches."""
    for path, hook in _hooks(cfg):
        if type_name(hook) in _CHECKPOINT_HOOKS:
            interval = hook.get('interval', -1)
            if hook.get('by_epoch', True) and is_finite(interval) and interval > 0:
                yield (
                    f'{path}: it saves every {interval} epochs (by_epoch=True), but train_cfg counts iterations '
                    f'({loop}), so that nothing would be saved before the end; set by_epoch=False and an interval in '
                    'iterations'
                )
        elif hook.get('begin_epoch'):
            yield (
                f'{path}.begin_epoch: {hook["begin_epoch"]!r} is never reached, as train_cfg counts iterations '
                f'({loop}); set begin_iter'
            )
    for path, schedule in _schedules(cfg.get('param_scheduler'), 'param_scheduler'):
        # the one follows validations, and the other is counted in iterations when it is built
        if type_name(schedule).startswith('ReduceOnPlateau') or schedule.get('convert_to_iter_based'):
            continue
        if schedule.get('by_epoch', True):
            yield (
                f'{path}: it changes at the end of an epoch (by_epoch=True), but train_cfg counts iterations ({loop}), '
                'so that it would never change; set by_epoch=False and begin and end in iterations'
            )


def _loop(cfg: Mapping) -> str | None:
    """The class of the training loop by its name without scope; None if there is none."""
    loop = cfg.get('train_cfg')
    if not isinstance(loop, Mapping):
        return None
    if 'type' in loop:
        return type_name(loop)
    return 'EpochBasedTrainLoop' if loop.get('by_epoch', 'max_epochs' in loop) else _ITER_LOOPS[0]


def _hooks(cfg: Mapping) -> Iterator[tuple[str, Mapping]]:
    default, custom = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    places = {f'default_hooks.{key}': hook for key, hook in default.items()}
    places |= {f'custom_hooks.{index}': hook for index, hook in enumerate(custom)}
    return ((path, hook) for path, hook in places.items() if isinstance(hook, Mapping))


def _schedules(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping) and 'type' in node:
        yield path, node
    elif isinstance(node, (Mapping, list, tuple)):
        for key, item in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _schedules(item, f'{path}.{key}')
