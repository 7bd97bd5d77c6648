"""Check of a config for misspelt keys and types, and for values that nothing takes, before any data is read.

The type of every dict with ``type`` is looked up in the registry for its position. Its keys are compared with the
arguments of the constructor (:mod:`florence_mm.config.signatures`), unless these cannot be known, and its values with
their annotations (:mod:`florence_mm.config.values`) and ranges (:mod:`florence_mm.config.ranges`). Settings that do not
fit together are found by :mod:`florence_mm.config.pairs`.
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine.config import Config
from torch.optim import Optimizer

import florence_mm.registry as own
from florence_mm.errors import UsageError
from florence_mm.utils.nearest import near_or_all, nearest

from .forwarded import CUSTOM_KEY, clip_arguments, default_type, kept_arguments, paramwise_arguments
from .image_size import image_size_problem
from .keys import (
    BUILDER_KEYS,
    LISTS_OF_TYPES,
    NEVER_EMPTY,
    NMS_TYPES,
    ONE_OF_TYPE,
    REGISTRY_OF_KEY,
    RUNNER_KEYS,
    SECTIONS,
    registry_of,
    section_of,
)
from .lookup import FALLBACKS, is_scope, lookup
from .pairs import pair_problems
from .signatures import arguments_of, mentions
from .type_names import one_slip, unknown_type
from .value_check import elsewhere_problem, inner_problem, is_exact, leaf_problem, text_problem, value_problem
from .values import is_object

#: Transforms whose inner types are those of albumentations, not of a registry.
_OTHER_BUILDERS = ('Albu', 'Albumentations')
#: Packages that a visualization backend imports when it is built.
_NEEDS = {
    'WandbVisBackend': ('wandb',),
    'MLflowVisBackend': ('mlflow',),
    'ClearMLVisBackend': ('clearml',),
    'NeptuneVisBackend': ('neptune',),
    'DVCLiveVisBackend': ('dvclive',),
    'AimVisBackend': ('aim',),
    'TensorboardVisBackend': ('tensorboard', 'tensorboardX'),
}
#: Arguments of schedules that count epochs or iterations.
_EPOCHS = ('begin', 'end', 'T_max', 'step_size', 'total_iters')
_EVALUATORS = ('val_evaluator', 'test_evaluator')
#: Numbers of loops.
_COUNTS = ('max_epochs', 'max_iters', 'val_interval', 'val_begin')
#: Keys that the builder of optimizer wrappers takes out.
_OF_WRAPPERS = section_of(optimizer=Optimizer, constructor=str | type)
_BY_EPOCH = section_of(by_epoch=bool)
#: Registries from which alone their positions are built; elsewhere a position may hold several kinds.
_ONLY = ('DATASETS',)
_EPOCH_LOOP, _ITER_LOOP = 'EpochBasedTrainLoop', 'IterBasedTrainLoop'


def check_config(cfg: Config | Mapping[str, Any], whole: bool = True) -> None:
    """Check all keys, types and values of a config.

    Args:
        cfg (Config or dict): A config, of this or another OpenMMLab package.
        whole (bool): Whether it is complete; a part that another config inherits may lack types.

    Raises:
        UsageError: something is unknown, not accepted, or does not fit together; the message has one line for each,
            with the key, the value, and what is accepted or the nearest known name.
    """
    cfg = cfg._cfg_dict if isinstance(cfg, Config) else cfg
    scope = cfg.get('default_scope')
    scope = 'mmengine' if scope is None else scope
    if not isinstance(scope, str) or not is_scope(scope):
        raise UsageError(
            f"default_scope: no package or registry is named {scope!r}; give that of the config's classes, such as "
            "'florence_mm' or 'mmdet'"
        )
    checker = _Checker(scope, whole)
    checker.check_top(cfg)
    # the rest compares values, which must be of the right type
    problems = checker.problems or (pair_problems(cfg) if whole else [])
    if problems:
        raise UsageError('\n'.join(problems))


def check_parts(cfg: Config | Mapping[str, Any], *names: str, default_scope: str = 'mmengine') -> None:
    """Check the keys, types and values of some entries of a config, for what uses no others, such as inference.

    Args:
        cfg (Config or dict): A config.
        names (str): Its entries; missing ones are passed over.
        default_scope (str): Scope of a config that has none.

    Raises:
        UsageError: as :func:`check_config`.
    """
    parts = {name: cfg[name] for name in names if cfg.get(name) is not None}
    check_config({'default_scope': cfg.get('default_scope') or default_scope, **parts}, whole=False)


def check_whole_config(cfg: Config | Mapping[str, Any]) -> None:
    """Check a config that is to be run (:func:`check_config`): it has a model too.

    Raises:
        UsageError: as :func:`check_config`, or there is no model.
    """
    if not cfg.get('model'):
        name = getattr(cfg, 'filename', None)
        raise UsageError(
            f'config {name or ""} has no model, so there is nothing to run; check the path'.replace('  ', ' ')
        )
    check_config(cfg)


class _Checker:
    """Walks a config and collects messages in :attr:`problems`."""

    def __init__(self, scope: str, whole: bool) -> None:
        self.problems: list[str] = []
        self.scope = scope
        self.whole = whole

    def check_top(self, cfg: Mapping[str, Any]) -> None:
        for key in cfg:
            near = nearest(key, RUNNER_KEYS) if key not in RUNNER_KEYS else None
            # other top-level names are variables of the config
            if near and one_slip(key, near):
                self.problems.append(f'{key}: the runner reads no such key; did you mean {near!r}?')
        self.problems.extend(filter(None, [image_size_problem(cfg)]))
        self._check_values('', cfg, SECTIONS[''], 'the runner', exact=True)
        if isinstance(cfg.get('default_hooks'), Mapping):
            self._check_hooks(cfg['default_hooks'])
        for key, value in cfg.items():
            self._check_sections(key, value)
            if self.whole and key in RUNNER_KEYS:
                self._check_types(key, key, value, is_own=False)
            if key in ('train_cfg', 'val_cfg', 'test_cfg') and isinstance(value, Mapping):
                self._check_loop(key, value)
            elif key in RUNNER_KEYS and key != 'smoke':
                self._walk(key, _with_default_type(key, value), REGISTRY_OF_KEY.get(key), self.scope)
        if isinstance(cfg.get('runner_type'), str):
            self._resolve('runner_type', cfg['runner_type'], 'RUNNERS', self.scope)

    def _check_sections(self, path: str, node: Any) -> None:
        """Check a dict without type, and those in it, whose keys are known by their position."""
        if path not in SECTIONS or not isinstance(node, Mapping):
            return
        self._check_keys(path, node, SECTIONS[path], path)
        self._check_values(path, node, SECTIONS[path], path, exact=True)
        for key, value in node.items():
            self._check_sections(f'{path}.{key}', value)

    def _check_hooks(self, hooks: Mapping[str, Any]) -> None:
        for name, hook in hooks.items():
            if hook is not None and not is_object(hook):
                self.problems.append(f'default_hooks.{name}: a dict with a type, or None, is expected, not {hook!r}')

    def _check_loop(self, path: str, cfg: Mapping[str, Any]) -> None:
        self._check_values(path, cfg, _BY_EPOCH, path, exact=True)
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
            self.problems.extend(filter(None, [leaf_problem(path, node, self.whole)]))
            return
        scope = node.get('_scope_', scope)
        inner, cls = registry, None
        parameters: Mapping[str, inspect.Parameter] = {}
        if 'type' in node:
            inner = None
            cls, place = self._resolve(path, node['type'], registry, scope)
            if cls is not None:
                self._check_arguments(path, node, cls, place, scope, owners)
                # our classes build their parts from our registry
                is_own = getattr(cls, '__module__', '').startswith(own.SCOPE + '.')
                scope = own.SCOPE if is_own else scope
                parameters = arguments_of(cls).known if is_own else {}
                owners = (*owners, cls)
                if getattr(cls, '__name__', None) in _OTHER_BUILDERS:
                    return
        # a type may be a word, as in the nms of a test_cfg
        by_name = owners and 'type' not in node and is_exact(owners[-1])
        problem = inner_problem if by_name else text_problem
        for key, value in node.items():
            self._note(problem(f'{path}.{key}', value, str(key), path))
        for key, value in node.items():
            place = f'{path}.{key}'
            self._note(elsewhere_problem(place, value, key) if not is_exact(owners[-1] if owners else None) else None)
            if self.whole:
                self._check_types(place, key, value, bool(parameters))
            if key == 'nms' and isinstance(value, Mapping) and value.get('type', 'nms') not in NMS_TYPES:
                self.problems.append(f'{place}.type: {value["type"]!r} is no such method; use {", ".join(NMS_TYPES)}')
            if key == 'sampler' and path.endswith('dataloader'):
                self._walk(place, value, 'DATA_SAMPLERS', scope, owners)
            elif key == 'constructor' and registry == 'OPTIM_WRAPPERS' and isinstance(value, str):
                self._resolve(place, value, 'OPTIM_WRAPPER_CONSTRUCTORS', scope)
            elif key == 'clip_grad' and registry == 'OPTIM_WRAPPERS' and isinstance(value, Mapping):
                self._check_clip(place, value)
            elif key == 'paramwise_cfg' and registry == 'OPTIM_WRAPPERS':
                self._check_paramwise(place, value, paramwise_arguments(node))
            elif isinstance(key, str):
                value = default_type(cls, key, value) if cls is not None else value
                self._walk(
                    place, value, REGISTRY_OF_KEY.get(key) or registry_of(parameters.get(key)) or inner, scope, owners
                )

    def _check_types(self, path: str, key: Any, value: Any, is_own: bool) -> None:
        """Check that what is built from a dict with type is one."""
        if key in ONE_OF_TYPE and isinstance(value, Mapping) and value and 'type' not in value:
            self.problems.append(f'{path}: the dict has no type, which names the class to build; it has {_few(value)}')
        elif path in _EVALUATORS and isinstance(value, Mapping) and not {'type', 'metrics'} & {*value}:
            self.problems.append(f'{path}: the dict has no type, which names the metric; it has {_few(value)}')
        elif key in NEVER_EMPTY and isinstance(value, (list, tuple)) and not value and is_own:
            self.problems.append(f'{path}: the list is empty; it takes at least one')
        elif key in LISTS_OF_TYPES and isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping) and 'type' not in item:
                    self.problems.append(
                        f'{path}.{index}: the dict has no type, which names the class to build; it has {_few(item)}'
                    )
                elif not is_object(item) and not (key == 'pipeline' and callable(item)):
                    self.problems.append(f'{path}.{index}: a dict with a type is expected here, not {item!r}')

    def _check_clip(self, path: str, node: Mapping) -> None:
        arguments = clip_arguments(node)
        if arguments is None:
            self.problems.append(f"{path}.type: 'norm' or 'value' is expected here, not {node['type']!r}")
            return
        inner = {key: value for key, value in node.items() if key != 'type'}
        if not inner:
            self.problems.append(f'{path}: the dict has no limit; it takes {", ".join(arguments)}')
        self._check_keys(path, inner, arguments, 'clip_grad')
        self._check_values(path, inner, arguments, 'clip_grad', exact=True)

    def _check_paramwise(self, path: str, node: Any, arguments: Mapping[str, inspect.Parameter] | None) -> None:
        if node is not None and not isinstance(node, Mapping):
            self.problems.append(f'{path}: a dict is expected here, not {node!r}')
        elif node and arguments is not None:
            self._check_options(path, node, arguments)
            custom = node.get('custom_keys')
            for key, inner in custom.items() if isinstance(custom, Mapping) else ():
                self._check_options(f'{path}.custom_keys.{key}', inner, CUSTOM_KEY)

    def _check_options(self, path: str, node: Mapping, arguments: Mapping[str, inspect.Parameter]) -> None:
        """Check a dict that may have other keys too, as mmengine hands some on to the optimizer's groups."""
        slips = {key: nearest(key, arguments) for key in node if key not in arguments}
        self._check_keys(path, {key: node[key] for key, near in slips.items() if near}, arguments, 'paramwise_cfg')
        self._check_values(path, node, arguments, 'paramwise_cfg', exact=True)

    def _check_values(
        self, path: str, node: Mapping, parameters: Mapping[str, inspect.Parameter], owner: str, exact: bool
    ) -> None:
        for key, parameter in parameters.items():
            if key in node and (self.whole or 'Ellipsis' not in repr(node[key])):  # an example leaves it out
                place = f'{path}.{key}' if path else key
                self._note(value_problem(place, node[key], parameter, owner, exact))

    def _note(self, problem: str | None) -> None:
        if problem and problem not in self.problems:
            self.problems.append(problem)

    def _resolve(self, path: str, type_: Any, registry: str | None, scope: str) -> tuple[Callable | None, str | None]:
        """Look up the class that ``type_`` names, and its registry."""
        if not isinstance(type_, str):
            if not callable(type_):
                self.problems.append(f'{path}.type: the name of a class is expected here, not {type_!r}')
                return None, None
            return type_, registry
        if type_ in NMS_TYPES and path.rpartition('.')[2] == 'nms':
            return None, None  # no class; looking for it in all registries would import all of us
        cls = lookup(registry, type_, scope) if registry else None
        if cls is not None:
            return cls, registry
        for name in FALLBACKS:
            cls = lookup(name, type_, scope)
            if cls is not None:
                if registry in _ONLY:
                    kinds = f'registered in {name.lower()}, and not in {registry.lower()}'
                    self._note(f'{path}.type: {type_!r} is {kinds}, from which it is built; choose another')
                return cls, name
        self._note(unknown_type(path, type_, registry, scope))
        return None, None

    def _check_arguments(
        self, path: str, node: Mapping, cls: Callable, registry: str | None, scope: str, owners: tuple[type, ...]
    ) -> None:
        arguments, name = arguments_of(cls), getattr(cls, '__name__', str(cls))
        known = dict(arguments.known)
        kept = None if arguments.complete else kept_arguments(cls, node, scope) if inspect.isclass(cls) else None
        known = {**(kept or {}), **known}
        silent = {'type', '_scope_', *BUILDER_KEYS.get(registry, ())}
        if arguments.complete or kept is not None:
            # an enclosing class may use keys itself before it builds this one
            silent |= {key for key in node if key not in known and any(mentions(owner, key) for owner in owners)}
            self._check_keys(path, node, known, name, silent)
        if node.get('convert_to_iter_based'):  # mmengine turns fractions of epochs into iterations
            known |= {key: known[key].replace(annotation=float) for key in _EPOCHS if key in known}
        if registry == 'LOOPS':  # loops take 1e5 too
            known |= {key: known[key].replace(annotation=float) for key in _COUNTS if key in known}
        if registry == 'OPTIM_WRAPPERS':
            known |= _OF_WRAPPERS
        values = {key: known[key] for key in known if key not in ('type', '_scope_')}
        self._check_values(path, node, values, name, is_exact(cls))
        needs = _NEEDS.get(name, ())
        if needs and not any(importlib.util.find_spec(package) for package in needs):
            self.problems.append(
                f'{path}.type: {name} needs the package {needs[0]}, which is not installed; leave it out'
            )

    def _check_keys(
        self, path: str, node: Mapping, accepted: Iterable[str], owner: str, silent: Iterable[str] = ()
    ) -> None:
        accepted = frozenset(accepted)
        for key in node:
            if key in accepted or key in silent or not isinstance(key, str):
                continue
            self.problems.append(f'{path}.{key}: {owner} has no argument {key!r}{near_or_all(key, accepted)}')


def _few(node: Mapping) -> str:
    return ', '.join(map(str, list(node)[:8]))


def _with_default_type(key: str, value: Any) -> Any:
    """Add the type that the runner uses for a dict without one; a dict of several optimizers gets none."""
    if isinstance(value, Mapping) and 'type' not in value:
        if key == 'log_processor':
            return {'type': 'LogProcessor', **value}
        if key == 'optim_wrapper' and 'optimizer' in value:
            return {'type': 'OptimWrapper', **value}
    return value
