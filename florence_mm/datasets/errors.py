"""The error of unusable data, where data sets and their users look for it."""

from ..utils.errors import DataError

__all__ = ['DataError']
