"""Training and test runs: runner, loops, hooks, samplers, optimizers, sharding, checkpoints of runs.

Not here: reading configs (``config``), metrics (``evaluation``), public checkpoint formats (``models/checkpoints``).
"""

from florence_mm.errors import UsageError

from . import hooks, loops, optim, picture_sampler, runner, samplers
from .runner import FlorenceRunner

__all__ = ['FlorenceRunner', 'UsageError', 'hooks', 'loops', 'optim', 'picture_sampler', 'runner', 'samplers']
