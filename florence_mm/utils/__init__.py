"""Small helpers that know nothing of vision or language.

Whole files, progress, misspelt names, results kept for unchanged weights, seeds of samples, boxes in numpy.

Not here: a helper of one folder, which stands in that folder.
"""
