"""Config files: reading them, finding misspelt keys, command-line options, and where a value came from.

Not here: building what a config describes.
"""
