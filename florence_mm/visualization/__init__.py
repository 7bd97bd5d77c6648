"""Drawing of boxes, curves, retrieval grids, attention maps and labelled videos, from arrays and plain values.

Not here: running a model.
"""

from .curves import draw_curves, read_scalars
from .detections import draw_detections
from .predictions import draw_prediction, draw_prediction_grid
from .retrieval import draw_retrieval_grid
from .samples import draw_sample, sample_image

__all__ = [
    'draw_curves',
    'draw_detections',
    'draw_prediction',
    'draw_prediction_grid',
    'draw_retrieval_grid',
    'draw_sample',
    'read_scalars',
    'sample_image',
]
