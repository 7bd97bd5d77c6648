"""Helpers independent of vision and language.

Atomic and text files, progress logs, suggestions for misspelt names, snapshots of weights, seeds of samples, boxes in
numpy.

Not here: a helper that only one folder uses, which lives in that folder.
"""
