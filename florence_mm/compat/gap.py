"""What a gap is, and how its mend is applied before or after the module that has it is imported."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass
class Gap:
    """One place where an installed package does not work with the others.

    Attributes:
        name (str): short name, as ``python -m florence_mm doctor`` prints it.
        package (str): top-level module that has the gap; nothing is done where it is not installed.
        why (str): one sentence on what fails without the mend.
        needed (Callable): feature test; False once the package no longer has the gap. It runs when the mend
            would be applied and must not import the package itself.
        mend (Callable): applies the mend; gets the imported module where ``after`` names one.
        after (str, optional): the module after whose import the mend is applied; None: at once.
        state (str): ``'not installed'``, ``'not needed'``, ``'mended'`` or ``'waits for its import'``.
    """

    name: str
    package: str
    why: str
    needed: Callable[[], bool]
    mend: Callable[..., None]
    after: str | None = None
    state: str = ''

    def install(self) -> None:
        """Apply the mend now, or when :attr:`after` gets imported; does nothing the second time."""
        if self.state:
            return
        if not is_installed(self.package):
            self.state = 'not installed'
        elif self.after is None:
            self._apply()
        else:
            self.state = 'waits for its import'
            after_import(self.after, self._apply)

    def _apply(self, *module: ModuleType) -> None:
        if self.needed():
            self.mend(*module)
            self.state = 'mended'
        else:
            self.state = 'not needed'


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def after_import(name: str, callback: Callable[[ModuleType], None]) -> None:
    """Call ``callback(module)`` once ``name`` has been executed, now if it has been already."""
    if name in sys.modules:
        callback(sys.modules[name])
        return
    if not any(isinstance(finder, _PostImportFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PostImportFinder())
    _CALLBACKS.setdefault(name, []).append(callback)


def replace_everywhere(module: ModuleType, name: str, new: Any) -> None:
    """Set ``module.name``, and the same object wherever a module of that package imported it by name."""
    old = getattr(module, name)
    package = module.__name__.partition('.')[0]
    for other in list(sys.modules.values()):
        if getattr(other, '__name__', '').partition('.')[0] == package and getattr(other, name, None) is old:
            setattr(other, name, new)


_CALLBACKS: dict[str, list[Callable[[ModuleType], None]]] = {}


class _PostImportFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that a callback waits for and wraps their loader."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname not in _CALLBACKS:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = find(fullname, path, target) if find is not None and finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _PostImportLoader(spec.loader)
                return spec
        return None


class _PostImportLoader(importlib.abc.Loader):
    """Loads with the wrapped loader, then runs the callbacks; all else is the wrapped loader's."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def create_module(self, spec: Any) -> ModuleType | None:
        return self.wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.wrapped
        self.wrapped.exec_module(module)
        for callback in _CALLBACKS.pop(module.__name__, []):
            callback(module)
