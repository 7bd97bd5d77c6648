"""florence_mm: Florence as an OpenMMLab toolbox (arXiv 2111.11432).

Importing the package patches the installed OpenMMLab stack (:mod:`florence_mm.compat`), at once or as soon as torch or
one of these packages is imported. So import it before mmdet, mmpretrain or mmaction.
"""

from . import compat, moved
from .version import __version__

compat.install(operators='florence_mm.ops.mmcv_operators')
moved.install()

__all__ = ['__version__']
