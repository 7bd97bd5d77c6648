"""Registries of florence_mm: one child of each mmengine root registry, scope ``florence_mm``.

A new model needs no entry in a list: :func:`register_models` imports every file under ``florence_mm/models``.

In mmengine the *default scope* wins over the registry an object is built from, so
``MODELS.build(dict(type='SwinTransformer'))`` returns another package's class whenever that package is the
default scope. Our registries look up a name without scope among our own classes first, and only then as mmengine
does (default scope, then the root). A few names mean other classes in other packages, such as ``Resize``: these are
ours only if the default scope is ours, or none is set.
"""

import pkgutil
import re
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.registry import DefaultScope, Registry

SCOPE = 'florence_mm'


class _LateModules(dict):
    """A dict of classes by name that imports a deferred module when its class is looked up."""

    def __init__(self, deferred: Mapping[str, str]) -> None:
        super().__init__()
        self.deferred = dict(deferred)

    def _import(self, name: object) -> None:
        if name in self.deferred:
            import_module(self.deferred[name])

    def __contains__(self, name: object) -> bool:
        self._import(name)
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        self._import(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._import(name)
        return super().get(name, default)


class OwnFirstRegistry(Registry):
    """A registry that prefers its own classes for names without scope, whatever the default scope is.

    Names in ``shared`` are the exception.

    Args:
        *args, **kwargs: passed to :class:`mmengine.registry.Registry`.
        deferred: class name to module; the module is imported when the class is first looked up. For classes built on
            packages that take seconds to import. Until then the class is missing from the registry's listing.
        shared: names that other packages have classes of, which configs in their default scope mean.
    """

    def __init__(
        self, *args: Any, deferred: Mapping[str, str] | None = None, shared: Collection[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        # child registries of other packages look into it themselves
        self._module_dict = _LateModules(deferred or {})
        self.shared = frozenset(shared)

    @property
    def names(self) -> set[str]:
        """Names of all classes, deferred ones included, without importing anything."""
        return {*self._module_dict, *self._module_dict.deferred}

    def defer(self, modules: Mapping[str, str]) -> None:
        """Add classes whose modules are imported when the class is first looked up."""
        self._module_dict.deferred.update(modules)

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """Build the object that ``cfg`` describes; ``type`` is a class or its name, with or without scope.

        Raises:
            KeyError: no registered class has the name.
        """
        type_ = cfg.get('type') if isinstance(cfg, dict) else None
        if isinstance(type_, str) and '_scope_' not in cfg:
            self.import_from_location()
            own = self._module_dict.get(type_)
            if own is not None and not self._is_of_others(type_):
                # a class in `type` is built without consulting the default scope
                cfg = {**cfg, 'type': own}
        return super().build(cfg, *args, **kwargs)

    def _is_of_others(self, name: str) -> bool:
        scope = DefaultScope.get_current_instance()
        return name in self.shared and scope is not None and scope.scope_name != SCOPE


def _child(name: str, *locations: str, shared: Collection[str] = ()) -> OwnFirstRegistry:
    root = getattr(roots, name)
    return OwnFirstRegistry(
        root.name,
        parent=root,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}' for location in locations],
        shared=shared,
    )


MODELS = _child('MODELS', 'models')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'engine')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'models')
DATASETS = _child('DATASETS', 'datasets')
TRANSFORMS = _child('TRANSFORMS', 'datasets', shared=('Resize', 'ResizeEdge', 'RandomResizedCrop'))
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'engine')
METRICS = _child('METRICS', 'evaluation')
EVALUATOR = _child('EVALUATOR', 'evaluation')
RUNNERS = _child('RUNNERS', 'engine')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS', 'engine')
STRATEGIES = _child('STRATEGIES', 'engine')
LOOPS = _child('LOOPS', 'engine', 'evaluation')
HOOKS = _child('HOOKS', 'engine')
OPTIMIZERS = _child('OPTIMIZERS', 'engine')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS', 'engine')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'engine')
FUNCTIONS = _child('FUNCTIONS', 'datasets')
TASK_UTILS = _child('TASK_UTILS', 'models')
VISUALIZERS = _child('VISUALIZERS', 'visualization')
VISBACKENDS = _child('VISBACKENDS', 'visualization')
INFERENCERS = _child('INFERENCERS', 'apis')

# importing these takes seconds, which models not built on them should not wait for
_SLOW = re.compile(r'^(?:from|import) (?:mmdet|mmaction)\b', re.MULTILINE)
_REGISTERED = re.compile(r'^@(\w+)\.register_module\([^\n]*\)\nclass (\w+)', re.MULTILINE)


def register_models(package: str) -> None:
    """Import every module under a package, so that its classes register.

    Modules that import mmdet or mmaction are deferred: their class names are read from the source, and the module is
    imported when one of them is first looked up.

    Args:
        package: dotted name of the package.
    """
    folders = find_spec(package).submodule_search_locations
    # without `onerror` a package that cannot be imported would be left out without a word
    for info in pkgutil.walk_packages(folders, f'{package}.', onerror=import_module):
        if info.ispkg:
            continue
        source = Path(find_spec(info.name).origin).read_text(encoding='utf-8')
        if not _SLOW.search(source):
            import_module(info.name)
            continue
        for registry, name in _REGISTERED.findall(source):
            globals()[registry].defer({name: info.name})
