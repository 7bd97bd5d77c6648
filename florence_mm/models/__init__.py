"""Models. The files in this folder itself are what whole models share, and what others may ask of any model.

Every module below registers by existing. Not here: data sets, files of images or annotations, metrics, images.
"""

from florence_mm.registry import register_models

register_models(__name__)
