"""Bad and borderline inputs, by area: each is refused with one sentence, or gives the right value.

A module of this package has ``AREA``, its title, and ``cases()``, a list of :class:`~bad_inputs.case.BadInput`.
``tools/misc/bad_inputs.py`` writes the table of all of them, and ``tests/test_bad_inputs.py`` checks each.
"""

import importlib
import pkgutil
from types import ModuleType

from .case import BadInput


def areas() -> list[ModuleType]:
    """The modules with inputs, by their titles."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f'{__name__}.{name}') for name in names]
    return sorted((module for module in modules if hasattr(module, 'AREA')), key=lambda module: module.AREA)


def all_cases() -> list[tuple[str, BadInput]]:
    """All inputs, each with the title of its area."""
    return [(module.AREA, case) for module in areas() for case in module.cases()]
