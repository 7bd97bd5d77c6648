"""Patches for gaps in today's OpenMMLab packages; the only folder that changes other packages' modules.

One file per gap. Each gap has a feature test, so its patch is no longer applied once the package is fixed.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import mmcv_ext
from .gap import after_import

#: Top-level modules that have gaps, or whose import needs one closed.
PACKAGES = ('torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmaction', 'mmpretrain')


def install(operators: str | None = None) -> None:
    """Apply every patch that the installed packages need; repeated calls change nothing.

    If neither torch nor any of :data:`PACKAGES` is imported yet, the patches wait for the first of them, so that a
    command's help and shell completion, which use none, do not wait seconds for torch.

    Args:
        operators: name of the module whose functions replace the compiled operators of mmcv; it is imported when one
            of them is first called. None: calling these operators raises an error.
    """
    if operators is not None:
        mmcv_ext.set_operators(operators)
    if any(name in sys.modules for name in ('torch', *PACKAGES)):
        _apply()
    elif not any(isinstance(finder, _BeforeFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeFirst())
        after_import('torch', lambda torch: _apply())


def _apply() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _BeforeFirst)]
    importlib.import_module('.gaps', __name__)


class _BeforeFirst(importlib.abc.MetaPathFinder):
    """Applies the patches before the first of :data:`PACKAGES` is imported."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in PACKAGES:
            return None
        _apply()
        # searched anew, since the patches have changed the list of finders
        return importlib.util.find_spec(fullname)
