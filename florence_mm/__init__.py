"""florence_mm: Florence as an OpenMMLab toolbox (arXiv 2111.11432).

Importing the package patches the installed OpenMMLab stack (:mod:`florence_mm.compat`), at once or as soon as torch or
one of these packages is imported. So import it before mmdet, mmpretrain or mmaction.
"""

from importlib import import_module
from typing import Any

from . import compat, moved
from .version import __version__

compat.install(operators='florence_mm.ops.mmcv_operators')
moved.install()

_ON_DEMAND = {
    'from_pretrained': 'apis.zoo',
    'get_model': 'apis.zoo',
    'init_model': 'apis.zoo',
    'list_models': 'config.metafiles',
}

__all__ = ['__version__', *_ON_DEMAND]


def __getattr__(name: str) -> Any:
    # imported on demand, as they need everything below them
    if name in _ON_DEMAND:
        return getattr(import_module(f'{__name__}.{_ON_DEMAND[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
