"""Runner, loops, hooks, samplers and optimizer constructors."""

from florence_mm.errors import UsageError

from . import hooks, loops, optim, picture_sampler, runner, samplers
from .runner import FlorenceRunner

__all__ = ['FlorenceRunner', 'UsageError', 'hooks', 'loops', 'optim', 'picture_sampler', 'runner', 'samplers']
