"""Gaps in other packages, and how a patch is applied before or after the import of the module it changes."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass
class Gap:
    """One place where an installed package fails together with the others, and its patch.

    Attributes:
        name (str): short name, as ``python -m florence_mm doctor`` prints it.
        package (str): top-level module that has the gap; nothing is done if it is not installed.
        why (str): one sentence on what fails without the patch.
        needed (Callable): feature test; False once the package no longer has the gap. It runs just before the patch
            is applied and must not import the package itself.
        patch (Callable): applies the patch; is given the imported module if ``after`` names one.
        after (str, optional): the module after whose import the patch is applied; None: immediately.
        state (str): ``'not installed'``, ``'not needed'``, ``'patched'`` or ``'waits for its import'``.
    """

    name: str
    package: str
    why: str
    needed: Callable[[], bool]
    patch: Callable[..., None]
    after: str | None = None
    state: str = ''

    def install(self) -> None:
        """Apply the patch now, or once :attr:`after` is imported; a second call does nothing."""
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
        # the package may be imported while a model is being built on the meta device, which has no values to test
        torch = sys.modules.get('torch')
        with nullcontext() if torch is None else torch.device('cpu'):
            needed = self.needed()
        if needed:
            self.patch(*module)
            self.state = 'patched'
        else:
            self.state = 'not needed'


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def after_import(name: str, callback: Callable[[ModuleType], None]) -> None:
    """Call ``callback(module)`` after the import of ``name``, or now if it is already imported."""
    if name in sys.modules:
        callback(sys.modules[name])
        return
    _wait_for(name, _AFTER, callback)


def before_import(name: str, callback: Callable[[ModuleType], None]) -> None:
    """Call ``callback(module)`` with the module that is still empty, before its code runs; not if it is imported."""
    if name not in sys.modules:
        _wait_for(name, _BEFORE, callback)


def _wait_for(
    name: str, callbacks: dict[str, list[Callable[[ModuleType], None]]], callback: Callable[[ModuleType], None]
) -> None:
    if not any(isinstance(finder, _ImportFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportFinder())
    callbacks.setdefault(name, []).append(callback)


def replace_everywhere(module: ModuleType, name: str, new: Any) -> None:
    """Replace ``module.name``, and every copy of it that other modules of the package have imported by name."""
    old = getattr(module, name)
    package = module.__name__.partition('.')[0]
    for other in list(sys.modules.values()):
        if getattr(other, '__name__', '').partition('.')[0] == package and getattr(other, name, None) is old:
            setattr(other, name, new)


_BEFORE: dict[str, list[Callable[[ModuleType], None]]] = {}
_AFTER: dict[str, list[Callable[[ModuleType], None]]] = {}


class _ImportFinder(importlib.abc.MetaPathFinder):
    """Wraps the loaders of the modules that a callback waits for."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname not in _BEFORE and fullname not in _AFTER:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = find(fullname, path, target) if find is not None and finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _ImportLoader(spec.loader)
                return spec
        return None


class _ImportLoader(importlib.abc.Loader):
    """Loads a module with the wrapped loader, between the callbacks."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def create_module(self, spec: Any) -> ModuleType | None:
        return self.wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.wrapped
        for callback in _BEFORE.get(module.__name__, []):
            callback(module)
        self.wrapped.exec_module(module)
        _BEFORE.pop(module.__name__, None)
        for callback in _AFTER.pop(module.__name__, []):
            callback(module)
