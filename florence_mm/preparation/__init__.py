"""Public files into files that our data sets read, once, before any training; commands call it, configs do not.

Not here: what runs for every sample of a training (``datasets``).
"""
