"""Config files: reading, checking for misspelt keys, command-line options, finding a value's origin.

Not here: building objects from configs.
"""
