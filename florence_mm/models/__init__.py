"""Models; the modules of this folder itself hold what whole models share and the protocols that other code uses.

All modules below are registered automatically. Not here: data sets, files of images or annotations, metrics, drawing.
"""

from florence_mm.registry import register_models

register_models(__name__)
