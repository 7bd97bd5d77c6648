"""Metrics and evaluation protocols."""

from . import metrics
