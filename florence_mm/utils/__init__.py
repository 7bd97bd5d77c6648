"""Helpers independent of vision and language.

Atomic, text and JSON files, reading of paths and URLs, progress logs, checks of numbers and of limits on what may be
left out, suggestions for misspelt names, seeds of samples, boxes in numpy.

Not here: a helper that only one folder uses, which lives in that folder.
"""
