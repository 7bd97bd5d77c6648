"""Optimizer wrappers and constructors."""

from .amp import FlorenceAmpOptimWrapper
from .constructor import NoDecayOptimWrapperConstructor, parameter_groups

__all__ = ['FlorenceAmpOptimWrapper', 'NoDecayOptimWrapperConstructor', 'parameter_groups']
