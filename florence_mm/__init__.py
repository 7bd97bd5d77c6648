"""florence_mm: Florence as an OpenMMLab toolbox (arXiv 2111.11432).

Importing the package mends the installed OpenMMLab stack (:mod:`florence_mm.compat`), so import it before
mmdet, mmpretrain or mmaction.
"""

from . import compat
from .version import __version__

compat.install()

__all__ = ['__version__']
