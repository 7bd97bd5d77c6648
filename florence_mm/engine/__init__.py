"""Runner, loops, hooks, samplers and optimizer constructors."""

from . import hooks, loops, optim, picture_sampler, runner, samplers
from .errors import UsageError
from .runner import FlorenceRunner

__all__ = ['FlorenceRunner', 'UsageError', 'hooks', 'loops', 'optim', 'picture_sampler', 'runner', 'samplers']
