"""Pictures of results."""

from .curves import draw_curves, read_scalars
from .predictions import draw_prediction, draw_prediction_grid
from .retrieval import draw_retrieval_grid

__all__ = ['draw_curves', 'draw_prediction', 'draw_prediction_grid', 'draw_retrieval_grid', 'read_scalars']
