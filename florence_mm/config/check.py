"""Check of a config for misspelt keys and types, before any data is read.

The type of every dict with ``type`` is looked up in the registry for its position, and its keys are compared with the
arguments of the constructor (:mod:`florence_mm.config.signatures`), unless these cannot be known.
"""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import florence_mm.registry as own
from florence_mm.errors import UsageError
from florence_mm.utils.nearest import did_you_mean, edit_distance, nearest

from .image_size import image_size_problem
from .merge import member
from .signatures import accepted_arguments

#: Registry of the objects under a config key, at any position.
_REGISTRY_OF_KEY = {
    'model': 'MODELS',
    'tta_model': 'MODELS',
    'data_preprocessor': 'MODELS',
    'dataset': 'DATASETS',
    'datasets': 'DATASETS',
    'pipeline': 'TRANSFORMS',
    'transforms': 'TRANSFORMS',
    'batch_sampler': 'DATA_SAMPLERS',
    'collate_fn': 'FUNCTIONS',
    'worker_init_fn': 'FUNCTIONS',
    'optim_wrapper': 'OPTIM_WRAPPERS',
    'optimizer': 'OPTIMIZERS',
    'param_scheduler': 'PARAM_SCHEDULERS',
    'val_evaluator': 'METRICS',
    'test_evaluator': 'METRICS',
    'metrics': 'METRICS',
    'default_hooks': 'HOOKS',
    'custom_hooks': 'HOOKS',
    'visualizer': 'VISUALIZERS',
    'vis_backends': 'VISBACKENDS',
    'log_processor': 'LOG_PROCESSORS',
    'init_cfg': 'WEIGHT_INITIALIZERS',
    'model_wrapper_cfg': 'MODEL_WRAPPERS',
}
#: Keys that the builder of a registry removes before it calls the constructor.
_BUILDER_KEYS = {
    'HOOKS': {'priority'},
    'PARAM_SCHEDULERS': {'convert_to_iter_based', 'epoch_length'},
    'OPTIM_WRAPPERS': {'optimizer', 'constructor', 'paramwise_cfg'},
    'WEIGHT_INITIALIZERS': {'override', 'name'},
    'MODELS': {'requires_grad', 'postfix'},
}
#: Other registries in which a type is looked up, most probable first.
_FALLBACKS = (
    *('MODELS', 'TASK_UTILS', 'TRANSFORMS', 'DATASETS', 'METRICS', 'EVALUATOR', 'HOOKS', 'WEIGHT_INITIALIZERS'),
    *('DATA_SAMPLERS', 'FUNCTIONS', 'OPTIMIZERS', 'LOOPS', 'VISUALIZERS', 'VISBACKENDS', 'INFERENCERS'),
)
#: Transforms whose inner types are those of albumentations, not of a registry.
_OTHER_BUILDERS = ('Albu', 'Albumentations')
_LOADER_KEYS = frozenset(
    [*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch', 'disable_subprocess_warning']
)
_FIXED_KEYS = {
    'train_dataloader': _LOADER_KEYS,
    'val_dataloader': _LOADER_KEYS,
    'test_dataloader': _LOADER_KEYS,
    'randomness': frozenset(['seed', 'diff_rank_seed', 'deterministic']),
    'auto_scale_lr': frozenset(['enable', 'base_batch_size']),
    'env_cfg': frozenset(['cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit']),
    'custom_imports': frozenset(['imports', 'allow_failed_imports']),
}
#: Top-level keys that the runner and the tools read.
RUNNER_KEYS = frozenset(
    [*(set(inspect.signature(Runner).parameters) - {'cfg'}), 'runner_type', 'custom_imports', 'compile', 'smoke']
    + ['activation_checkpointing', 'efficient_conv_bn_eval', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters']
    + ['parallelize', 'tta_model']
)
_EPOCH_LOOP, _ITER_LOOP = 'EpochBasedTrainLoop', 'IterBasedTrainLoop'


def check_config(cfg: Config | Mapping[str, Any]) -> None:
    """Check all keys and types of a config.

    Args:
        cfg (Config or dict): A complete config, of this or another OpenMMLab package.

    Raises:
        UsageError: keys or types are unknown; the message has one line for each, with the nearest known name.
    """
    cfg = cfg._cfg_dict if isinstance(cfg, Config) else cfg
    checker = _Checker(cfg.get('default_scope') or 'mmengine')
    checker.check_top(cfg)
    if checker.problems:
        raise UsageError('\n'.join(checker.problems))


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check command-line overrides for misspelt keys, which would create new ones.

    Args:
        cfg (Config): The config without the overrides.
        options (dict): Dotted keys and values from ``--cfg-options``.

    Raises:
        UsageError: the first part of a key is neither in the config nor a key of the runner, a later part is new and
            similar to an existing key or is inside a value without keys, or a list has no item of that type or index.
    """
    for key in options:
        node: Any = cfg._cfg_dict
        parts = key.split('.')
        for position, part in enumerate(parts):
            if isinstance(node, (list, tuple)):
                try:
                    _, node = member(node, part)
                except UsageError as error:
                    raise UsageError(f'--cfg-options {key}: {error}') from error
                continue
            if not isinstance(node, Mapping):
                place = '.'.join(parts[:position])
                raise UsageError(
                    f'--cfg-options {key}: {place} is {node!r} and has no keys; give {place} a new value as a whole'
                )
            if part in node:
                node = node[part]
                continue
            known = set(node) | (RUNNER_KEYS if position == 0 else set())
            near = nearest(part, known)
            if part not in known and (position == 0 or (near and 'type' not in node)):
                place = '.'.join(parts[:position]) or 'the config'
                raise UsageError(f'--cfg-options {key}: {place} has no key {part!r}{_near_or_all(part, known)}')
            break


def _near_or_all(name: str, candidates: Iterable[str]) -> str:
    """End a message with the nearest candidate, or with all candidates if they are few."""
    names = sorted(candidate for candidate in candidates if not candidate.startswith('_'))
    return did_you_mean(name, candidates, f'; it has {", ".join(names)}' if 0 < len(names) <= 40 else '')


class _Checker:
    """Walks a config and collects messages in :attr:`problems`."""

    def __init__(self, scope: str) -> None:
        self.problems: list[str] = []
        self.scope = scope

    def check_top(self, cfg: Mapping[str, Any]) -> None:
        for key in cfg:
            near = nearest(key, RUNNER_KEYS) if key not in RUNNER_KEYS else None
            # other top-level names are variables of the config
            if near and _one_slip(key, near):
                self.problems.append(f'{key}: the runner reads no such key; did you mean {near!r}?')
        self.problems.extend(filter(None, [image_size_problem(cfg)]))
        for key, value in cfg.items():
            if key in _FIXED_KEYS and isinstance(value, Mapping):
                self._check_keys(key, value, _FIXED_KEYS[key], key)
            if key in ('train_cfg', 'val_cfg', 'test_cfg') and isinstance(value, Mapping):
                self._check_loop(key, value)
            elif key in RUNNER_KEYS and key != 'smoke':
                self._walk(key, _with_default_type(key, value), _REGISTRY_OF_KEY.get(key), self.scope)

    def _check_loop(self, path: str, cfg: Mapping[str, Any]) -> None:
        by_epoch = cfg.get('by_epoch', 'max_epochs' in cfg)
        default = {'train_cfg': _EPOCH_LOOP if by_epoch else _ITER_LOOP, 'val_cfg': 'ValLoop'}
        loop = {'type': default.get(path, 'TestLoop'), **{key: cfg[key] for key in cfg if key != 'by_epoch'}}
        self._walk(path, loop, 'LOOPS', self.scope)

    def _walk(self, path: str, node: Any, registry: str | None, scope: str, owners: tuple[type, ...] = ()) -> None:
        """Check ``node`` and everything inside it.

        Args:
            path (str): Dotted position in the config.
            node (Any): The value.
            registry (str, optional): Registry for the position, None if unknown.
            scope (str): Scope in which unscoped types are looked up.
            owners (tuple[type]): Classes inside whose arguments the node is.
        """
        if isinstance(node, (list, tuple)):
            for index, item in enumerate(node):
                self._walk(f'{path}.{index}', item, registry, scope, owners)
            return
        if not isinstance(node, Mapping):
            return
        scope = node.get('_scope_', scope)
        inner = registry
        if 'type' in node:
            inner = None
            cls, place = self._resolve(path, node['type'], registry, scope)
            if cls is not None:
                self._check_arguments(path, node, cls, place, owners)
                # our classes build their parts from our registry
                scope = own.SCOPE if getattr(cls, '__module__', '').startswith(own.SCOPE + '.') else scope
                owners = (*owners, cls)
                if getattr(cls, '__name__', None) in _OTHER_BUILDERS:
                    return
        for key, value in node.items():
            if key == 'sampler' and path.endswith('dataloader'):
                self._walk(f'{path}.{key}', value, 'DATA_SAMPLERS', scope, owners)
            elif key == 'constructor' and registry == 'OPTIM_WRAPPERS' and isinstance(value, str):
                self._resolve(f'{path}.{key}', value, 'OPTIM_WRAPPER_CONSTRUCTORS', scope)
            elif key != 'paramwise_cfg' and isinstance(key, str) and isinstance(value, (Mapping, list, tuple)):
                self._walk(f'{path}.{key}', value, _REGISTRY_OF_KEY.get(key, inner), scope, owners)

    def _resolve(self, path: str, type_: Any, registry: str | None, scope: str) -> tuple[Callable | None, str | None]:
        """Look up the class that ``type_`` names, and its registry."""
        if not isinstance(type_, str):
            return (type_ if callable(type_) else None), registry
        cls = _lookup(registry, type_, scope) if registry else None
        if cls is not None:
            return cls, registry
        for name in _FALLBACKS:
            cls = _lookup(name, type_, scope)
            if cls is not None:
                return cls, name
        names = _names(registry or 'MODELS', type_, scope)
        word = type_.rsplit('.', 1)[-1]
        near = nearest(word, names)
        near = near if near and near != word and _one_slip(word.lower(), near.lower()) else None
        # elsewhere `type` may be a word that its owner interprets (mmcv's nms), so only a near miss of a class name
        # is an error
        if registry is not None or (near and len(type_) > 5 and not type_.islower()):
            prefix = f'{type_.rsplit(".", 1)[0]}.' if '.' in type_ else ''
            hint = (
                f'; did you mean {prefix + near!r}?'
                if near
                else '; check the name, or add its module to custom_imports'
            )
            what = (registry or 'MODELS').lower().replace('_', ' ')
            self.problems.append(f'{path}.type: {type_!r} is not registered in {what}{hint}')
        return None, None

    def _check_arguments(
        self, path: str, node: Mapping, cls: Callable, registry: str | None, owners: tuple[type, ...]
    ) -> None:
        accepted = accepted_arguments(cls)
        if accepted is None:
            return
        silent = {'type', '_scope_', *_BUILDER_KEYS.get(registry, ())}
        # an enclosing class may use keys itself before it builds this one
        silent |= {key for key in node if key not in accepted and any(_mentions(owner, key) for owner in owners)}
        self._check_keys(path, node, accepted, cls.__name__, silent)

    def _check_keys(
        self, path: str, node: Mapping, accepted: Iterable[str], owner: str, silent: Iterable[str] = ()
    ) -> None:
        accepted = frozenset(accepted)
        for key in node:
            if key in accepted or key in silent or not isinstance(key, str):
                continue
            self.problems.append(f'{path}.{key}: {owner} has no argument {key!r}{_near_or_all(key, accepted)}')


def _with_default_type(key: str, value: Any) -> Any:
    """Add the type that the runner uses for a dict without one; a dict of several optimizers gets none."""
    if isinstance(value, Mapping) and 'type' not in value:
        if key == 'log_processor':
            return {'type': 'LogProcessor', **value}
        if key == 'optim_wrapper' and 'optimizer' in value:
            return {'type': 'OptimWrapper', **value}
    return value


@functools.cache
def _mentions(owner: type, key: str) -> bool:
    """Whether ``key`` occurs as a string in the source of a class or one of its parents."""
    for cls in getattr(owner, '__mro__', ()):
        if cls.__module__.split('.')[0] in ('torch', 'builtins'):
            continue
        with contextlib.suppress(OSError, TypeError):
            source = inspect.getsource(cls)
            if f"'{key}'" in source or f'"{key}"' in source:
                return True
    return False


def _one_slip(name: str, near: str) -> bool:
    """Whether two names differ by one letter (two in long names)."""
    return edit_distance(name, near) <= (2 if len(near) >= 10 else 1)


def _scoped(registry: str, scope: str) -> Registry:
    """The registry that is used for ``registry`` under the default scope ``scope``."""
    root: Registry = getattr(roots, registry)
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(f'{scope}.registry')
    scoped = root._search_child(scope)
    return root if scoped is None else scoped


def _lookup(registry: str, type_: str, scope: str) -> Any:
    scoped = _scoped(registry, scope)
    try:
        return scoped.get(type_)
    except (RuntimeError, TypeError):  # raised by mmengine for unknown names, and for names that begin with a dot
        return None
    except ModuleNotFoundError as error:
        # mmaction2 1.2.0 lists some of its modules that do not exist; names of mmengine can still be used
        if error.name not in scoped._locations:
            raise
        return scoped.root.module_dict.get(type_)


def _names(registry: str, type_: str, scope: str) -> list[str]:
    """Registered names that ``type_`` may be a misspelling of."""
    scoped: Registry | None = _scoped(registry, type_.split('.')[0] or scope if '.' in type_ else scope)
    names: list[str] = []
    while scoped is not None:
        names += getattr(scoped, 'names', scoped.module_dict)
        scoped = scoped.parent
    return names
