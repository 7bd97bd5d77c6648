"""One-time conversion of public files into files that our data sets read; used by commands, not by configs.

Not here: what runs for every sample during training (``datasets``).
"""
