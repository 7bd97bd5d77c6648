"""Optimizers, optimizer wrappers and their constructors."""

from .amp import FlorenceAmpOptimWrapper
from .constructor import NoDecayOptimWrapperConstructor, parameter_groups
from .muon import MuonAdamW, orthogonalize

__all__ = [
    'FlorenceAmpOptimWrapper',
    'MuonAdamW',
    'NoDecayOptimWrapperConstructor',
    'orthogonalize',
    'parameter_groups',
]
