"""Registries of florence_mm: one child of each mmengine root, scope ``florence_mm``.

A model registers by existing: :func:`register_models` finds every file under ``florence_mm/models``.

mmengine lets the *default scope* win over the registry an object is built from, so
``MODELS.build(dict(type='SwinTransformer'))`` returns another package's class whenever that package is the
default scope. Our registries look an unscoped name up among our own classes first; a name that we do not
have goes mmengine's way (default scope, then the root).
"""

import pkgutil
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'florence_mm'


class _LateModules(dict):
    """Classes by name, some of which are imported when their name is looked up."""

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
    """A registry whose unscoped names mean its own classes under every default scope.

    Args:
        *args, **kwargs: of :class:`mmengine.registry.Registry`.
        deferred: names of classes, each with its module, which is imported when the class is asked for: what is built
            on another package need not cost those who do not use it the seconds that its import takes. Until then
            listings lack it.
    """

    def __init__(self, *args: Any, deferred: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # child registries of other packages look into it themselves
        self._module_dict = _LateModules(deferred or {})

    @property
    def names(self) -> set[str]:
        """All names, those included that are imported late; imports nothing."""
        return {*self._module_dict, *self._module_dict.deferred}

    def defer(self, modules: Mapping[str, str]) -> None:
        """Note further names whose modules are imported when the class is asked for."""
        self._module_dict.deferred.update(modules)

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """Build ``cfg``; ``type`` is a name (scoped or not) or a class.

        Raises:
            KeyError: no registered class has the name.
        """
        type_ = cfg.get('type') if isinstance(cfg, dict) else None
        if isinstance(type_, str) and '_scope_' not in cfg:
            self.import_from_location()
            own = self._module_dict.get(type_)
            if own is not None:
                # a class in `type` is built as it is, without a look at the default scope
                cfg = {**cfg, 'type': own}
        return super().build(cfg, *args, **kwargs)


def _child(name: str, *locations: str) -> OwnFirstRegistry:
    root = getattr(roots, name)
    return OwnFirstRegistry(
        root.name,
        parent=root,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}' for location in locations],
    )


MODELS = _child('MODELS', 'models')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'engine')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'models')
DATASETS = _child('DATASETS', 'datasets')
TRANSFORMS = _child('TRANSFORMS', 'datasets')
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

# the import of these takes seconds, which a model that is not built on them need not wait for
_SLOW = re.compile(r'^(?:from|import) (?:mmdet|mmaction)\b', re.MULTILINE)
_REGISTERED = re.compile(r'^@(\w+)\.register_module\([^\n]*\)\nclass (\w+)', re.MULTILINE)


def register_models(package: str) -> None:
    """Register what every module under a package registers.

    Modules are imported, but for those that import mmdet or mmaction: the names of their classes are noted, and they
    are imported when one is asked for.

    Args:
        package: name of the package; its modules are found in its folders.
    """
    for info in pkgutil.walk_packages(find_spec(package).submodule_search_locations, f'{package}.'):
        if info.ispkg:
            continue
        source = Path(find_spec(info.name).origin).read_text(encoding='utf-8')
        if not _SLOW.search(source):
            import_module(info.name)
            continue
        for registry, name in _REGISTERED.findall(source):
            globals()[registry].defer({name: info.name})
