"""Imports of other packages that wait until one of their names is asked for.

A package such as ``mmengine.optim`` imports all its modules at once, and with them packages that one run in a hundred
uses. Here the import statements in its ``__init__.py`` skip the names of some modules, and a ``__getattr__`` (PEP 562)
imports such a module when one of its names is asked for: everybody gets the true class, and what was imported before
stays as it is. The registries in which those modules would have registered classes find them through a
:class:`LateDict`.
"""

import builtins
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from .gap import after_import, before_import

_REGISTERED = re.compile(r'^@(\w+)\.register_module\(\)\nclass (\w+)', re.MULTILINE)
_PENDING = object()
#: modules that wait -> the packages around them, the innermost first
_MODULES: dict[str, list[str]] = {}
#: package -> names that wait -> module or package that has them
_NAMES: dict[str, dict[str, str]] = {}


class LateDict(dict):
    """A dict of classes by name, of which some are imported when they are looked up; listing it imports all.

    Args:
        known: the classes that are imported.

    Attributes:
        late (dict): name to a function that imports the class and returns it, or None if it cannot.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__(known)
        self.late: dict[str, Callable[[], Any]] = {}

    def _fetch(self, name: Any) -> None:
        # not taken out before it is there, as another thread may ask meanwhile; it then waits for the import
        if name in self.late:
            found = self.late[name]()
            if found is not None:
                self.late.pop(name, None)
                super().setdefault(name, found)

    def _fetch_all(self) -> None:
        for name in list(self.late):
            self._fetch(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.late.pop(name, None)
        super().__setitem__(name, value)


def _one(method: str) -> Callable:
    def look_up(self: LateDict, name: Any, *args: Any) -> Any:
        self._fetch(name)
        return getattr(dict, method)(self, name, *args)

    return look_up


def _whole(method: str) -> Callable:
    def list_all(self: LateDict, *args: Any) -> Any:
        self._fetch_all()
        return getattr(dict, method)(self, *args)

    return list_all


for _method in ('__contains__', '__getitem__', '__delitem__', 'get', 'pop', 'setdefault'):
    setattr(LateDict, _method, _one(_method))
for _method in (
    *('__iter__', '__len__', '__repr__', '__reversed__', '__eq__', '__ne__', '__or__', '__ror__'),
    *('keys', 'values', 'items', 'copy'),
):
    setattr(LateDict, _method, _whole(_method))


def late_modules(*modules: str) -> None:
    """Let modules wait until one of their names is asked for, in the packages around them and in their registries.

    Only packages are told: a module that imports a waiting one by itself imports it at once, as ever.

    Args:
        modules: names of modules in packages whose ``__init__.py`` has imports alone, no functions.
    """
    for module in modules:
        parts = module.split('.')
        _MODULES[module] = ['.'.join(parts[:end]) for end in range(len(parts) - 1, 1, -1)]
        for package in _MODULES[module]:
            if package not in _NAMES and package not in sys.modules:
                _NAMES[package] = {}
                before_import(package, _leave_out)
                after_import(package, _take_on)


def late_submodules(package: str, names: Sequence[str]) -> None:
    """Let a package's own modules wait, which it imports as ``from package import name``.

    Args:
        package: name of the package.
        names: names of modules in it.
    """
    if package not in sys.modules:
        _NAMES[package] = {name: f'{package}.{name}' for name in names}
        # what the package already has, `from package import name` does not import
        before_import(package, lambda module: vars(module).update(dict.fromkeys(names, _PENDING)))
        after_import(package, _take_on)


def late_class(registry: dict[str, Any], name: str, load: Callable[[], Any]) -> LateDict:
    """Enter a class in a registry's dict, to be imported when it is looked up.

    Args:
        registry: the dict.
        name: name of the class.
        load: function that imports it and returns it, or None if it cannot.

    Returns:
        the dict to use from now on: ``registry`` itself if it is a :class:`LateDict`, else a copy that is one.
    """
    late = registry if isinstance(registry, LateDict) else LateDict(registry)
    late.late[name] = load
    return late


def _leave_out(package: ModuleType) -> None:
    """Give the code of a package, which is about to run, an ``import`` that leaves waiting names out.

    The code of a package without functions keeps no reference to it.
    """
    waiting = _NAMES[package.__name__]
    waiting.clear()

    def import_(
        name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
    ) -> Any:
        source = importlib.util.resolve_name('.' * level + name, package.__spec__.parent)
        if source in _MODULES and fromlist:
            late, given = list(fromlist), {}
        else:
            found = builtins.__import__(name, globals, locals, (), level)
            late = _waiting_among(source, fromlist or ())
            if not late:
                return builtins.__import__(name, globals, locals, fromlist, level) if fromlist else found
            rest = [name for name in (_names_of(source) if '*' in fromlist else fromlist) if name not in late]
            found = builtins.__import__(name, globals, locals, rest or ['__name__'], level)
            given = {name: getattr(found, name) for name in rest}
        waiting.update(dict.fromkeys(late, source))
        given |= dict.fromkeys(late, _PENDING)
        return SimpleNamespace(__all__=list(given), **given)

    vars(package)['__builtins__'] = {**vars(builtins), '__import__': import_}


def _waiting_among(source: str, names: Sequence[str]) -> list[str]:
    """Names that an import statement would bring and that wait; ``'*'`` stands for all public ones."""
    known = _NAMES.get(source, {})
    return [name for name in (_names_of(source) if '*' in names else names) if name in known]


def _names_of(source: str) -> Sequence[str]:
    module = sys.modules[source]
    return getattr(module, '__all__', [name for name in vars(module) if name[:1] != '_'])


def _take_on(package: ModuleType) -> None:
    """Make the waiting names of a package be found when they are asked for."""
    space, waiting = vars(package), _NAMES[package.__name__]
    space['__builtins__'] = builtins
    for name in list(waiting):
        if space.get(name) is _PENDING:
            del space[name]
        else:  # the package has set it again
            del waiting[name]
    others = space.get('__getattr__')

    def find(name: str) -> Any:
        source = waiting.get(name)
        if source == f'{package.__name__}.{name}':
            return importlib.import_module(source)
        if source is not None:
            space[name] = getattr(importlib.import_module(source), name)
            return space[name]
        if f'{package.__name__}.{name}' in _MODULES:
            return importlib.import_module(f'{package.__name__}.{name}')
        if name == '__all__':  # of `from package import *`
            return [name for name in {**space, **waiting} if name[:1] != '_']
        if others is not None:
            return others(name)
        raise AttributeError(f'module {package.__name__!r} has no attribute {name!r}')

    package.__getattr__ = find
    package.__dir__ = lambda: sorted({*space, *waiting})
    for module, around in _MODULES.items():
        if around[0] == package.__name__:
            _register_late(module)


def _register_late(module: str) -> None:
    """Enter the classes of a waiting module in the registries of its package."""
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding='utf-8')
    registries = importlib.import_module(f'{module.partition(".")[0]}.registry')
    for registry, name in _REGISTERED.findall(source):
        place = getattr(registries, registry)

        def load(name: str = name) -> Any:
            return getattr(importlib.import_module(module), name, None)

        place._module_dict = late_class(place._module_dict, name, load)
