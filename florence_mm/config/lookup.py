"""Classes that ``type`` in a config names, looked up in the registries as mmengine's builders do."""

import contextlib
import importlib
import importlib.util
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

#: Registries in which a type is looked up where its position does not tell which, most probable first.
FALLBACKS = (
    *('MODELS', 'TASK_UTILS', 'TRANSFORMS', 'DATASETS', 'METRICS', 'EVALUATOR', 'HOOKS', 'WEIGHT_INITIALIZERS'),
    *('DATA_SAMPLERS', 'FUNCTIONS', 'OPTIMIZERS', 'LOOPS', 'VISUALIZERS', 'VISBACKENDS', 'INFERENCERS'),
)


def lookup(registry: str, type_: str, scope: str) -> Any:
    """Find a class by its name; None if there is none.

    Args:
        registry (str): Name of the root registry in :mod:`mmengine.registry`, such as ``'MODELS'``.
        type_ (str): Name of the class, with or without scope.
        scope (str): Default scope.
    """
    scoped = _scoped(registry, scope)
    try:
        return scoped.get(type_)
    except (RuntimeError, TypeError):  # raised by mmengine for unknown names, and for names that begin with a dot
        return None
    except ModuleNotFoundError as error:
        # mmaction2 1.2.0 lists some of its modules that do not exist; names of mmengine can still be used
        package = type_.partition('.')[0] if '.' in type_ else scope
        if error.name not in scoped._locations and not str(error.name).startswith(f'{package}.'):
            raise
        return scoped.root.module_dict.get(type_)


def registered_names(registry: str, type_: str, scope: str) -> list[str]:
    """Registered names that ``type_`` may be a misspelling of."""
    scoped: Registry | None = _scoped(registry, type_.split('.')[0] or scope if '.' in type_ else scope)
    names: list[str] = []
    while scoped is not None:
        names += getattr(scoped, 'names', scoped.module_dict)
        scoped = scoped.parent
    return names


def is_scope(name: str) -> bool:
    """Whether a default scope is that of a package that can be imported, or of a registry that exists."""
    # as a scope is a package's name, it has no dot, and find_spec imports nothing
    if name.isidentifier() and importlib.util.find_spec(name) is not None:
        return True
    registries = [registry for registry in vars(roots).values() if isinstance(registry, Registry)]
    return any(registry._search_child(name) is not None for registry in registries)


def _scoped(registry: str, scope: str) -> Registry:
    """The registry that is used for ``registry`` under the default scope ``scope``."""
    root: Registry = getattr(roots, registry)
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(f'{scope}.registry')
    scoped = root._search_child(scope)
    return root if scoped is None else scoped
