"""A training or test run: runner, loops, hooks, samplers, optimizer constructors, sharding, checkpoint files.

Not here: reading a config (``config``), metrics (``evaluation``), public checkpoint layouts (``models/checkpoints``).
"""

from florence_mm.errors import UsageError

from . import hooks, loops, optim, picture_sampler, runner, samplers
from .runner import FlorenceRunner

__all__ = ['FlorenceRunner', 'UsageError', 'hooks', 'loops', 'optim', 'picture_sampler', 'runner', 'samplers']
