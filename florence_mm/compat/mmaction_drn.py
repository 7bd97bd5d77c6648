"""Supply the module ``models/localizers/drn``, which ``mmaction.models`` imports and mmaction2's wheel lacks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .gap import Gap

PACKAGE = 'mmaction.models.localizers.drn'


def _missing() -> bool:
    folder = Path(importlib.util.find_spec('mmaction').origin).parent / 'models/localizers'
    return folder.exists() and not (folder / 'drn/drn.py').exists()


class DRN:
    """Placeholder for mmaction2's temporal grounding model, whose code is not in the wheel."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError('the wheel of mmaction2 1.2.0 lacks DRN; install mmaction2 from source to use it')


def _add_modules() -> None:
    package, module = ModuleType(PACKAGE), ModuleType(f'{PACKAGE}.drn')
    package.__path__ = []
    package.drn, module.DRN = module, DRN
    sys.modules[package.__name__], sys.modules[module.__name__] = package, module


GAP = Gap(
    name='mmaction2 DRN',
    package='mmaction',
    why='the wheel lacks models/localizers/drn, and mmaction.models imports it',
    needed=_missing,
    patch=_add_modules,
)
