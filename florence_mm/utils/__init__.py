"""Small helpers that know nothing of vision or language: whole files, progress, seeds of samples, boxes in numpy.

Not here: a helper of one folder, which stands in that folder.
"""
