"""Registries of florence_mm: one child of each mmengine root, scope ``florence_mm``.

mmengine lets the *default scope* win over the registry an object is built from, so
``MODELS.build(dict(type='SwinTransformer'))`` returns another package's class whenever that package is the
default scope. Our registries look an unscoped name up among our own classes first; a name that we do not
have goes mmengine's way (default scope, then the root).
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'florence_mm'


class OwnFirstRegistry(Registry):
    """A registry whose unscoped names mean its own classes under every default scope.

    Args:
        *args, **kwargs: of :class:`mmengine.registry.Registry`.
        deferred: names of classes, each with its module, which is imported when the class is asked for: what is built
            on another package need not cost those who do not use it the seconds that its import takes.
    """

    def __init__(self, *args: Any, deferred: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deferred = dict(deferred or {})

    @property
    def module_dict(self) -> dict[str, type]:
        """All names and their classes, those included that are imported late."""
        for name in self._deferred:
            self._import_deferred(name)
        return self._module_dict

    def get(self, key: str) -> type | None:
        """The class of that name, scoped or not; None: there is none."""
        self._import_deferred(key)
        return super().get(key)

    def _import_deferred(self, key: str) -> None:
        module = self._deferred.get(key.rpartition('.')[2]) if isinstance(key, str) else None
        if module is not None:
            import_module(module)

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """Build ``cfg``; ``type`` is a name (scoped or not) or a class.

        Raises:
            KeyError: no registered class has the name.
        """
        type_ = cfg.get('type') if isinstance(cfg, dict) else None
        if isinstance(type_, str) and '_scope_' not in cfg:
            self.import_from_location()
            self._import_deferred(type_)
            own = self._module_dict.get(type_)
            if own is not None:
                # a class in `type` is built as it is, without a look at the default scope
                cfg = {**cfg, 'type': own}
        return super().build(cfg, *args, **kwargs)


def _child(name: str, *locations: str, deferred: Mapping[str, str] | None = None) -> OwnFirstRegistry:
    root = getattr(roots, name)
    return OwnFirstRegistry(
        root.name,
        parent=root,
        scope=SCOPE,
        locations=[f'{SCOPE}.{location}' for location in locations],
        deferred={key: f'{SCOPE}.{location}' for key, location in (deferred or {}).items()},
    )


# the head of mmdet's detectors is built on mmdet
MODELS = _child('MODELS', 'models', deferred={'DynamicHead': 'models.heads.dynamic_head'})
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
