"""Smoke runs: two training steps of any config on generated data, in seconds (``tools/train.py CONFIG --smoke``).

Not here: data on which scores are reported (``corpora``).
"""

from . import detection, documents, pictures, questions, tasks
from .run import run_smoke, smoke_config
from .stand_ins import register_smoke_data

__all__ = [
    'detection',
    'documents',
    'pictures',
    'questions',
    'register_smoke_data',
    'run_smoke',
    'smoke_config',
    'tasks',
]
