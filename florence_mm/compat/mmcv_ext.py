"""A stand-in for ``mmcv._ext``, the compiled operators that mmcv-lite lacks and ``mmdet.models`` imports.

The operators that detectors need come from a module whose name :func:`set_operators` takes and which is imported at
their first call; calling any other operator raises an error that says what to install.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .gap import Gap

NAME = 'mmcv._ext'
HOW_TO_GET_IT = (
    'install the compiled mmcv (python -m pip uninstall mmcv-lite, then python -m pip install mmcv==2.1.0 '
    '--no-build-isolation) or choose a model without this operator'
)

#: operators that the module given to :func:`set_operators` must define
OPERATORS = (
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softnms',
)
#: available operators: name in ``mmcv._ext`` -> 'module:function'
PROVIDED: dict[str, str] = {}


def set_operators(module: str) -> None:
    """Take the :data:`OPERATORS` from the module of this name, which is imported when one is first called."""
    PROVIDED.update({name: f'{module}:{name}' for name in OPERATORS})


class _StandInLoader(importlib.abc.Loader):
    """Loader of the stand-in, so that ``importlib`` and ``pkgutil`` find it like any module."""

    def create_module(self, spec: Any) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = 'Stand-in of florence_mm for the compiled operators of mmcv.'


class _StandIn(ModuleType):
    """A module that has every name, so that mmcv's checks at import pass; a missing operator raises when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        if name in PROVIDED:

            def provided(*args: Any, **kwargs: Any) -> Any:
                module, _, function = PROVIDED[name].partition(':')
                function = getattr(importlib.import_module(module), function)
                setattr(self, name, function)
                return function(*args, **kwargs)

            return provided

        def missing(*args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(f'the operator {name!r} of mmcv is not compiled here; {HOW_TO_GET_IT}')

        missing.__name__ = name
        return missing


def is_compiled() -> bool:
    """Whether the installed mmcv has its compiled operators, without importing mmcv."""
    module = sys.modules.get(NAME)
    if module is not None:
        return not isinstance(module, _StandIn)
    spec = importlib.util.find_spec('mmcv')
    if spec is None:
        return False
    folder = Path(spec.origin).parent
    return any((folder / f'_ext{suffix}').exists() for suffix in importlib.machinery.EXTENSION_SUFFIXES)


def _install() -> None:
    spec = importlib.machinery.ModuleSpec(NAME, _StandInLoader(), origin=__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module


GAP = Gap(
    name='mmcv operators',
    package='mmcv',
    why='mmcv-lite lacks mmcv._ext, without which mmdet.models does not import',
    needed=lambda: not is_compiled(),
    patch=_install,
)
